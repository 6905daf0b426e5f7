"""Answers over HTTP as OpenAI's API has them: by ftkit's own thin app, or by an engine that is started here."""
