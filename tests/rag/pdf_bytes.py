"""PDF files written by hand, with as little in them as a reader needs."""

from __future__ import annotations

import zlib


def pdf(contents: list[bytes], *, title: str = "", deflate: bool = False) -> bytes:
    """A PDF with one page for each content stream."""
    kids = " ".join(f"{5 + 2 * index} 0 R" for index in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(contents)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Title ({title}) >>".encode(),
    ]
    for index, content in enumerate(contents):
        stream = zlib.compress(content, 9) if deflate else content
        filtered = b" /Filter /FlateDecode" if deflate else b""
        fonts = b"/Resources << /Font << /F1 3 0 R >> >>"
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] %s /Contents %d 0 R >>" % (fonts, 6 + 2 * index)
        )
        objects.append(b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(stream), filtered, stream))
    return _file(objects)


def lines(*texts: str) -> bytes:
    """The content of a page that shows some lines, one below the other."""
    shown = b" T* ".join(f"({text}) Tj".encode() for text in texts)
    return b"BT /F1 12 Tf 14 TL 50 700 Td " + shown + b" ET"


def pages_again(content: bytes, times: int) -> bytes:
    """A PDF whose one page is counted many times over."""
    return pdf([content]).replace(b"/Kids [5 0 R]", b"/Kids [%s]" % b" ".join([b"5 0 R"] * times))


def _file(objects: list[bytes]) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, table)
    return bytes(out)
