"""The house of architecture.md, enforced on the source text: floors, seams, adapters, sizes, forbidden calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 320, 60

# A module imports from strictly lower floors, or from its own package.
FLOORS = {
    "errors": 0, "units": 0, "nearest": 0, "json_lines": 0, "files": 0, "cache": 0, "machine": 0, "notices": 0,
    "template_limits": 0,
    "recipe": 1,
    "data": 2, "models": 2, "methods": 2,
    "evaluate": 3,
    "train": 4, "export": 4, "report": 4,
    "pipeline": 5, "tune": 5,
    "rag": 6,
    "hybrid": 7,
    "compare": 8,
    "improve": 9,
    "serve": 10, "advise": 10,
    "cli": 11,
}  # fmt: skip
# The public names and `python -m ftkit`: they stand apart and only pass on what is below.
APART = {"", "__main__", "api"}
# The single files of floor 0 are peers that do use each other, in this order.
GROUND = ["errors", "units", "nearest", "json_lines", "machine", "notices", "cache", "files", "template_limits"]

# Inside a package a file imports only the files listed before it.
ORDER = {
    "recipe": [
        "base", "rows", "sections", "evaluating", "methods", "lora_family", "recipes", "rag", "comparing", "compare",
        "hybrid", "improve",
        "advise", "facts", "digest", "yaml12", "overrides", "anchor", "load", "shipped", "",
    ],
    "data": [
        "sample", "example", "private", "lint", "stats", "lint_dataset", "show",
        "linear", "template_language", "chat", "borders", "words", "text_encoder", "control", "render",
        "tokens", "encode", "settings",
        "packing", "collate", "report",
        "sources.files", "sources.blocks", "sources.streams", "sources.jsonl", "sources.json_list",
        "sources.separated", "sources.columnar", "sources.prose", "sources.kinds", "sources.saved", "sources.hub",
        "sources.find", "sources", "rows", "split", "ngrams", "near", "repeats", "mixture", "plan",
        "formats.fields", "formats.tools", "formats.turns", "formats.text", "formats.messages",
        "formats.prompt_completion", "formats.alpaca", "formats.sharegpt", "formats.preference", "formats",
        "column_template", "columns", "arrays", "block", "worker", "pool", "store", "token_cache", "stored", "gather",
        "tables", "summary", "prepare", "stream", "streaming", "",
    ],
    "models": [
        "known", "wheel", "cache", "weights", "shards", "gguf", "find", "find_encoder", "find_reranker", "precision",
        "chat_template", "tokenizer", "prompt_tokens", "vocabulary", "load", "licences", "",
    ],
    "methods": [
        "bottleneck", "method", "targets", "tokens", "quantised", "adapter_files", "peft_calls", "layerwise",
        "peft_method", "starts", "full", "lora", "qlora", "lora_family", "adalora", "soft_prompts", "adapter",
        "loading", "lora_file", "combination_formula", "combination", "",
    ],
    "evaluate": ["loss", "metrics", "generation", "speaking", "general", "forgetting", ""],
    "train": [
        "allocator", "batches", "schedule", "metrics_log", "progress", "signals", "counters", "spec", "arguments",
        "optimizer", "checkpoint", "documents", "isolation", "soundness", "course", "objective", "canaries",
        "moments", "trainer", "work", "",
    ],
    "export": [
        "manifest", "engines", "card", "limits", "probes", "process", "measure", "contract_cases", "token_contract",
        "trained",
        "converter", "engine_tokens", "soft_prompt", "target", "quality", "targets.adapter", "targets.merged",
        "targets.nf4", "onnx_process", "targets.onnx", "targets.gguf", "targets.gguf_adapter", "targets", "write",
        "verify_process", "readers", "readers.convert_to_gguf", "readers.llama_cpp", "readers.onnx_genai", "base",
        "checks", "verify", "archive", "unpack", "signing", "licensing", "sbom", "run_guide", "",
    ],
    "rag": [
        "document", "loaders.reading", "loaders.plain", "loaders.markdown", "loaders.web",
        "loaders.pdf_process", "loaders.parser", "loaders.pdf",
        "loaders.rows", "loaders", "sources", "corpus", "blocks", "cuts", "chunking",
        "world.draw", "world.names", "world.values", "world.wording", "world.companies", "world.places",
        "world.kinds", "world.parts", "world.build", "world.documents", "world.questions", "world.edits",
        "world.write", "world.closed", "world",
        "encoder", "passage", "reranker", "fusion", "lexical", "schema", "settings", "exported", "vectors", "store",
        "soundness", "growth", "index", "reader", "likelihood", "threshold", "hops", "cited", "answering",
        "opening",
        "objectives", "questions", "blame", "intervals", "measured", "measuring", "outcomes", "figures", "evaluation",
        "canaries",
        "evaluation_page", "updates", "spans", "boilerplate", "drawing", "asking", "roundtrip", "unanswerable",
        "synthetic",
        "training", "mining", "raft", "readings", "learning", "snapshot", "building", "adaptation", "joint",
        "beginning", "totals", "stretches", "run_page_parts", "run_page", "run",
        "audit", "reading_bounds", "ground", "checking",
        "parts", "probing", "rereading", "export_process", "proving", "export_card", "exporting",
        "bundling", "",
    ],
    "hybrid": [
        "reading", "weights", "kept", "mixture", "remembered", "shards", "datastore", "nearest", "combining",
        "logistic", "router", "members", "judging", "remembering", "course", "training", "weighed", "kinds",
        "exported", "opening",
        "evaluation", "page", "run", "checking", "rereading", "export_process", "proving", "exporting", "",
    ],
    "compare": [
        "workload", "arms", "work", "plan", "training", "sheet", "foils", "variants", "from_answers",
        "seat", "asking", "style", "wordings", "counterfactual", "general", "combining", "routing", "updating",
        "checking", "opened", "measuring",
        "figures", "contrasts", "claims", "staged", "lifecycle", "document", "page_parts", "page", "run",
        "",
    ],
    "improve": [
        "log", "keys", "frozen", "filtering", "trainable", "former", "identity", "asking", "gate", "promotion",
        "rounds", "tuning", "checking", "run", "",
    ],
    "advise": ["options", "rules", "literature", "evidence", "ranking", "advice", "asking", "page", ""],
    "serve": [
        "names", "listen", "wire", "cited", "documents", "journal", "desk", "gate", "app", "own", "engines", "child",
        "",
    ],
}  # fmt: skip

LONG_FILES: dict[str, str] = {
    "ftkit/methods/bottleneck.py": "one file without ftkit, so that an export can be served with a copy of it",
}
LONG_FUNCTIONS: dict[str, str] = {}

# One adapter a library, so that a breaking release touches one package.
ADAPTERS = {
    "peft": {"methods"},
    "bitsandbytes": {"methods"},
    "trl": {"train"},
    "transformers.Trainer": {"train"},
    "transformers.TrainingArguments": {"train"},
    "sentence_transformers": {"rag"},
    "pypdf": {"rag"},
    "bs4": {"rag"},
    "model_signing": {"export"},
}
# Run alone in a process of their own, with nothing of ftkit, as the export's users would load it.
STANDS_ALONE = {
    "export.verify_process", "export.onnx_process", "export.readers.convert_to_gguf", "export.readers.llama_cpp",
    "export.readers.onnx_genai", "rag.loaders.pdf_process",
}  # fmt: skip
HEAVY = {"torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "numpy", "pyarrow"}
LIGHT_FLOORS = {"errors", "units", "files", "machine", "notices", "recipe", "advise", "cli", "", "__main__"}
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@dataclass(frozen=True)
class Import:
    """One imported name: ``module`` as a dotted path, the line, and whether it hides inside a function."""

    module: str
    line: int
    hidden: bool


@dataclass(frozen=True)
class Module:
    """One file: its name below ftkit (``recipe.load``; a package is its own ``__init__``), path, and parsed text."""

    name: str
    path: str
    text: str

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> list[Import]:
        """Every import, relative ones resolved; those under ``if TYPE_CHECKING`` too, for they are knowledge."""
        return list(_imports(self.tree, self, hidden=False))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    def at(self, line: int, what: str) -> str:
        return f"{self.path}:{line}: {what}"


def _imports(node: ast.AST, module: Module, *, hidden: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, hidden) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                here = f"ftkit.{module.name}".split(".")
                depth = child.level - module.path.endswith("__init__.py")
                base = ".".join([*here[: len(here) - depth], *([base] if base else [])])
            yield from (Import(f"{base}.{alias.name}", child.lineno, hidden) for alias in child.names)
        inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        yield from _imports(child, module, hidden=hidden or inside)


def read_modules() -> dict[str, Module]:
    found = {}
    for path in sorted((ROOT / "ftkit").rglob("*.py")):
        parts = path.relative_to(ROOT / "ftkit").with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    return found


def target(imported: Import, names: set[str]) -> str | None:
    """The file of ftkit that an import reads, by its name; None for other libraries."""
    parts = imported.module.split(".")
    if parts[0] != "ftkit":
        return None
    inner = parts[1:]
    while inner and ".".join(inner) not in names:
        inner.pop()
    return ".".join(inner)


# The rules: each gives what breaks it.


def broken_floors(modules: dict[str, Module]) -> list[str]:
    names, faults = set(modules), []
    for module in modules.values():
        if module.package in APART:
            continue
        if module.package not in FLOORS:
            faults.append(module.at(1, f"give {module.package} a floor"))
            continue
        for imported in module.imports:
            other = target(imported, names)
            if other is None or other.partition(".")[0] == module.package:
                continue
            package = other.partition(".")[0]
            if package == "" and module.package == "cli":
                continue  # the version
            both_ground = package in GROUND and module.package in GROUND
            lower = (
                GROUND.index(package) < GROUND.index(module.package)
                if both_ground
                else package in FLOORS and FLOORS[package] < FLOORS[module.package]
            )
            if not lower:
                faults.append(module.at(imported.line, f"{module.name} imports {other}, which is not below it"))
    return faults


def hidden_imports(modules: dict[str, Module]) -> list[str]:
    """First-party imports inside functions; only a cli command may, and ``ftkit.__getattr__``."""
    faults = []
    for module in modules.values():
        if module.package not in ("cli", ""):
            faults += [
                module.at(imported.line, f"hides an import of {imported.module}")
                for imported in module.imports
                if imported.hidden and imported.module.split(".")[0] == "ftkit"
            ]
        if module.name != "":
            faults += [
                module.at(call.lineno, "imports by a name made at run time")
                for call in module.nodes
                if isinstance(call, ast.Call)
                and _name(call.func).split(".")[-1] in ("import_module", "__import__")
                and not (
                    call.args and isinstance(call.args[0], ast.Constant) and "ftkit" not in str(call.args[0].value)
                )
            ]
    return faults


def eager_commands(modules: dict[str, Module]) -> list[str]:
    """What a cli file imports at its head is light: its own package, the ground floor, recipe."""
    names = set(modules)
    return [
        module.at(imported.line, f"imports {other} before its command is called")
        for module in modules.values()
        if module.package == "cli"
        for imported in module.imports
        if not imported.hidden and (other := target(imported, names)) is not None
        if FLOORS.get(other.partition(".")[0], 0) > 1 and other.partition(".")[0] != "cli"
    ]


def out_of_order(modules: dict[str, Module]) -> list[str]:
    names, faults = set(modules), []
    for package, order in ORDER.items():
        inner = {name: module for name, module in modules.items() if module.package == package}
        listed = [f"{package}.{name}".rstrip(".") for name in order]
        faults += [
            module.at(1, f"list it in ORDER[{package!r}]") for name, module in inner.items() if name not in listed
        ]
        for name, module in inner.items():
            for imported in module.imports:
                other = target(imported, names)
                if other in inner and name in listed and listed.index(other) >= listed.index(name):
                    faults.append(module.at(imported.line, f"{name} imports {other}, which is listed after it"))
    return faults


def cycles(modules: dict[str, Module]) -> list[str]:
    names = set(modules)
    edges = {
        name: {other for imported in module.imports if (other := target(imported, names)) not in (None, name)}
        for name, module in modules.items()
        if name != ""
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> list[str]:
        if name in above:
            return [" -> ".join((*above[above.index(name) :], name))]
        if name in done:
            return []
        found = [cycle for other in sorted(edges.get(name, ())) for cycle in visit(other, (*above, name))]
        done.add(name)
        return found

    return [cycle for name in sorted(edges) for cycle in visit(name, ())]


def stray_adapters(modules: dict[str, Module]) -> list[str]:
    faults = []
    for module in modules.values():
        if module.name in STANDS_ALONE:
            faults += [
                module.at(imported.line, "must stand alone, without ftkit")
                for imported in module.imports
                if imported.module.split(".")[0] == "ftkit"
            ]
            continue
        used = [(imported.module, imported.line) for imported in module.imports]
        used += [(_name(node), node.lineno) for node in module.nodes if isinstance(node, ast.Attribute)]
        for name, line in used:
            library = next((key for key in ADAPTERS if name == key or name.startswith(f"{key}.")), None)
            if name.startswith("transformers.trainer"):
                library = "transformers.Trainer"
            if library is not None and module.package not in ADAPTERS[library]:
                faults.append(module.at(line, f"uses {name}; only {', '.join(ADAPTERS[library])} may"))
    return faults


def heavy_heads(modules: dict[str, Module]) -> list[str]:
    return [
        module.at(imported.line, f"imports {imported.module} where everything must answer at once")
        for module in modules.values()
        if module.package in LIGHT_FLOORS
        for imported in module.imports
        if not imported.hidden and imported.module.split(".")[0] in HEAVY
    ]


def too_long(modules: dict[str, Module]) -> list[str]:
    faults = []
    for module in modules.values():
        lines = len(module.text.splitlines())
        if lines > MAX_FILE_LINES and module.path not in LONG_FILES:
            faults.append(module.at(lines, f"{lines} lines; the limit is {MAX_FILE_LINES}"))
        for node in module.nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES and f"{module.path}:{node.name}" not in LONG_FUNCTIONS:
                    faults.append(
                        module.at(node.lineno, f"{node.name} has {lines} lines; limit {MAX_FUNCTION_LINES}")
                    )
    return faults


def dangerous_calls(modules: dict[str, Module]) -> list[str]:
    """Whatever opens a pickle or runs a stranger's code."""
    faults = []
    for module in modules.values():
        faults += [
            module.at(imported.line, f"imports {imported.module}, which runs what it reads")
            for imported in module.imports
            if imported.module.split(".")[0] in RUNS_CODE or imported.module in ("torch.load", "torch.jit.load")
        ]
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and _name(node) in ("torch.load", "torch.jit.load"):
                faults.append(module.at(node.lineno, f"{_name(node)} opens pickles"))
            if isinstance(node, ast.Call) and _name(node.func) in ("eval", "exec"):
                faults.append(module.at(node.lineno, f"{_name(node.func)} runs text"))
            if (
                isinstance(node, ast.keyword)
                and node.arg in ("trust_remote_code", "allow_pickle")
                and _may_be_true(node)
            ):
                faults.append(module.at(node.value.lineno, f"{node.arg} is not plainly False"))
            if isinstance(node, ast.Dict):
                faults += [
                    module.at(key.lineno, f"{key.value} is not plainly False")
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant) and key.value in ("trust_remote_code", "allow_pickle")
                    if not (isinstance(value, ast.Constant) and value.value is False)
                ]
    return faults


def swallowed_errors(modules: dict[str, Module]) -> list[str]:
    """``except Exception: pass`` in any of its spellings."""
    broad = {"Exception", "BaseException"}
    faults = []
    for module in modules.values():
        for node in module.nodes:
            if isinstance(node, ast.ExceptHandler):
                named = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
                is_broad = not named or any(_name(one) in broad for one in named)
                says_nothing = all(
                    isinstance(line, (ast.Pass, ast.Continue))
                    or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
                    for line in node.body
                )
                if is_broad and says_nothing:
                    faults.append(module.at(node.lineno, "swallows every error"))
            suppresses = isinstance(node, ast.Call) and _name(node.func).split(".")[-1] == "suppress"
            if suppresses and any(_name(one) in broad for one in node.args):
                faults.append(module.at(node.lineno, "swallows every error"))
    return faults


def _name(node: ast.AST) -> str:
    """``a.b.c`` of a plain dotted name, else what can be said of its end."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return "?"


def _may_be_true(keyword: ast.keyword) -> bool:
    return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)


RULES = [broken_floors, hidden_imports, eager_commands, out_of_order, cycles, stray_adapters, heavy_heads, too_long,
         dangerous_calls, swallowed_errors]  # fmt: skip


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return read_modules()


def test_a_module_imports_only_from_lower_floors_or_its_own_package(modules):
    assert broken_floors(modules) == []


def test_no_first_party_import_hides_inside_a_function(modules):
    assert hidden_imports(modules) == []


def test_a_command_imports_the_library_only_when_it_is_called(modules):
    assert eager_commands(modules) == []


def test_a_file_imports_only_the_files_listed_above_it(modules):
    assert out_of_order(modules) == []


def test_no_imports_run_in_a_circle(modules):
    assert cycles(modules) == []


def test_each_library_is_touched_by_its_one_adapter(modules):
    assert stray_adapters(modules) == []


def test_recipes_and_commands_start_without_heavy_libraries(modules):
    assert heavy_heads(modules) == []


def test_no_file_and_no_function_is_too_long_to_read(modules):
    assert too_long(modules) == []


def test_every_sanctioned_long_file_is_still_long(modules):
    lines = {module.path: len(module.text.splitlines()) for module in modules.values()}

    assert [path for path in LONG_FILES if lines.get(path, 0) <= MAX_FILE_LINES] == []


def test_nothing_opens_a_pickle_or_runs_a_strangers_code(modules):
    assert dangerous_calls(modules) == []


def test_no_error_is_swallowed(modules):
    assert swallowed_errors(modules) == []


def test_the_lists_of_this_test_name_files_that_exist(modules):
    listed = {f"{package}.{name}".rstrip(".") for package, order in ORDER.items() for name in order}

    assert listed - set(modules) == set()


# The rules themselves: each must see the fault that it is there for.


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (broken_floors, "recipe.x", "from ftkit.data import prepare"),
        (broken_floors, "recipe.x", "from ftkit import models"),
        (broken_floors, "recipe.x", "from ..models import find"),
        (broken_floors, "recipe.x", "import ftkit.models.find"),
        (broken_floors, "data.x", "from ftkit.models.find import find_base"),
        (broken_floors, "data.x", "import ftkit"),
        (broken_floors, "data.x", "from ftkit.api import run"),
        (broken_floors, "data.x", "if TYPE_CHECKING:\n    from ftkit.train.trainer import fit"),
        (broken_floors, "data.x", "def f():\n    from ftkit.train.trainer import fit"),
        (broken_floors, "errors", "from ftkit.files import write_text"),
        (broken_floors, "newcomer", "import os"),
        (hidden_imports, "data.x", "def f():\n    from ftkit.errors import DataError"),
        (hidden_imports, "data.x", "class C:\n    def f(self):\n        import ftkit.files"),
        (hidden_imports, "data.x", "import importlib\nimportlib.import_module('ftkit.recipe')"),
        (hidden_imports, "data.x", "from importlib import import_module\nimport_module(name)"),
        (eager_commands, "cli.x", "from ftkit.pipeline.run import run"),
        (eager_commands, "cli.x", "import ftkit.data.prepare"),
        (out_of_order, "recipe.base", "from ftkit.recipe.load import load_recipe"),
        (out_of_order, "recipe.base", "from ftkit.recipe import Recipe"),
        (out_of_order, "recipe.newcomer", "import os"),
        (cycles, "units", "from ftkit.files import write_text"),
        (stray_adapters, "data.x", "import peft"),
        (stray_adapters, "data.x", "def f():\n    from peft.tuners import lora"),
        (stray_adapters, "export.x", "import bitsandbytes as bnb"),
        (stray_adapters, "methods.x", "from transformers import Trainer"),
        (stray_adapters, "methods.x", "from transformers.trainer_utils import set_seed"),
        (stray_adapters, "methods.x", "import transformers\ntransformers.TrainingArguments()"),
        (stray_adapters, "pipeline.x", "from trl import SFTTrainer"),
        *((stray_adapters, name, "from ftkit.files import sha256_file") for name in sorted(STANDS_ALONE)),
        (heavy_heads, "recipe.x", "import torch"),
        (heavy_heads, "cli.x", "from transformers import AutoTokenizer"),
        (heavy_heads, "cli.x", "try:\n    import numpy.random\nexcept ImportError:\n    pass"),
        (too_long, "data.x", "x = 1\n" * 321),
        (too_long, "data.x", "def f():\n" + "    x = 1\n" * 60),
        (dangerous_calls, "data.x", "import pickle"),
        (dangerous_calls, "data.x", "from pickle import loads"),
        (dangerous_calls, "data.x", "torch.load(path)"),
        (dangerous_calls, "data.x", "from torch import load"),
        (dangerous_calls, "data.x", "AutoModel.from_pretrained(p, trust_remote_code=True)"),
        (dangerous_calls, "data.x", "AutoModel.from_pretrained(p, trust_remote_code=flag)"),
        (dangerous_calls, "data.x", "options = {'trust_remote_code': True}"),
        (dangerous_calls, "data.x", "np.load(p, allow_pickle=True)"),
        (dangerous_calls, "data.x", "eval(text)"),
        (swallowed_errors, "data.x", "try:\n    f()\nexcept Exception:\n    pass"),
        (swallowed_errors, "data.x", "try:\n    f()\nexcept:\n    ..."),
        (swallowed_errors, "data.x", "for x in y:\n try:\n  f()\n except (OSError, Exception):\n  continue"),
        (swallowed_errors, "data.x", "import contextlib\nwith contextlib.suppress(Exception):\n    f()"),
    ],
)  # fmt: skip
def test_a_rule_sees_the_fault_that_it_is_there_for(modules, rule, name, text):
    before = rule(modules)
    bad = Module(name, f"ftkit/{name.replace('.', '/')}.py", text)

    assert set(rule(modules | {name: bad})) - set(before)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.x", "import re\nfrom ftkit.errors import DataError\nfrom ftkit.recipe import nearest"),
        ("data.x", "from ftkit.data.sample import Sample"),
        ("data.x", "def f():\n    import pandas"),
        ("data.x", "import importlib\nimportlib.import_module('pandas')"),
        ("cli.x", "import ftkit.errors\ndef f():\n    from ftkit.pipeline.run import run\n    import torch"),
        ("methods.x", "import peft\nfrom transformers import BitsAndBytesConfig"),
        ("train.x", "from transformers import Trainer"),
        ("pipeline.x", "from transformers import AutoModel\nAutoModel.from_pretrained(p, trust_remote_code=False)"),
        ("data.x", "try:\n    f()\nexcept OSError:\n    pass"),
        ("data.x", "try:\n    f()\nexcept Exception as error:\n    raise ValueError from error"),
        ("data.x", "x = 1\n" * 320),
    ],
)  # fmt: skip
def test_no_rule_objects_to_what_is_allowed(modules, name, text):
    order_free = [rule for rule in RULES if rule is not out_of_order]
    good = Module(name, f"ftkit/{name.replace('.', '/')}.py", text)

    assert [set(rule(modules | {name: good})) - set(rule(modules)) for rule in order_free] == [set()] * len(
        order_free
    )
