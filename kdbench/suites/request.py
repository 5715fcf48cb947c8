"""How pairs are asked for."""


def split_request(request: str, sign: str = ",") -> list[str]:
    """The parts of a request such as `hetero,vit-t:resnet18[layers=[1,1,1,1]]`, cut at signs outside brackets."""
    parts, depth = [""], 0
    for letter in request:
        depth += (letter == "[") - (letter == "]")
        if letter == sign and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]
