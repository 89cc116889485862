"""Words that occur nowhere else, to find out where they get to."""

import secrets


class Tokens:
    """Words that occur nowhere else."""

    def __init__(self):
        self.made: list[str] = []

    def __call__(self) -> str:
        self.made.append(f"tkn{secrets.token_hex(8)}")
        return self.made[-1]

    def number(self) -> int:
        """A number that is a token by its digits."""
        value = 10**17 + secrets.randbelow(10**17)
        self.made.append(str(value))
        return value

    def check(self, what: str, text: str) -> None:
        found = [token for token in self.made if token in text]
        if found:
            at = text.index(found[0])
            raise AssertionError(
                f"{len(found)} tokens in {what}, such as: ...{text[max(0, at - 200) : at + 60]}..."
            )
