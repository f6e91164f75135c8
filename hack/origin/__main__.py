"""The origin as a process of its own, so that the demo can kill it: `python -m hack.origin --repository R --tag T`.

It serves the image that `pythonimage` makes, prints one line when it is ready, and tells how many blob bytes it has sent on
`GET /-/sent`.
"""

from __future__ import annotations

import argparse

from agent.process import EndSignals
from hack.origin.faults import Fault
from hack.origin.image import size_of
from hack.origin.pythonimage import python_image
from hack.origin.server import Origin


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hack.origin", description="Serve an image made of this Python.")
    parser.add_argument("--repository", required=True)
    parser.add_argument("--tag", required=True)
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--flip-a-byte", action="store_true", help="one byte in the middle of the first layer arrives wrong")
    arguments = parser.parse_args()

    origin = Origin(port=arguments.port)
    image = origin.push(arguments.repository, arguments.tag, python_image())
    if arguments.flip_a_byte:
        layer = image.layers[0]
        origin.fail(Fault(path=f"/blobs/{layer}", flip_byte=size_of(image.blobs[layer]) // 2))
    ending = EndSignals()
    with origin:
        print(f"origin ready: {origin.address}/{arguments.repository}:{arguments.tag}", flush=True)
        ending.wait()


if __name__ == "__main__":
    main()
