"""Write micro-clip's vocabulary: `CLBENCH_DATA=FOLDER python -m clbench.models.micro_clip.make_vocabulary`.

One word a line, in the order of their ids: letters, digits and signs; the words of captions; those of the class names
of the sets under FOLDER/images, of ImageNet, and of other sets in use; then numbers, until the vocabulary is full.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count, islice

from ...data.root import data_root
from ...torchvision_schemas import prepare
from .tokenizer import PIECE, VOCABULARY, WORDS

SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'\"()[]&%+/*#@<>=-_"
CAPTIONS = """
a an the of in on with and or for to from by at is are this that it its one can see image picture photo photograph
example shows there no not black white red green blue yellow orange purple pink brown grey gray cyan magenta dark bright
medium light colour color coloured colored colourful drawing drawn sketch painting painted cartoon art clipart infograph
quickdraw outline inverted noisy clean blurry cropped small large big tiny close up view scene style letter digit
character number word printed handwritten shape stripe stripes pattern texture surface satellite aerial radiology scan
microscope traffic sign supermarket type kind species object thing things animal plant person people food fruit
vegetable vehicle building landscape weather day night low resolution origami plastic toy doodle tattoo sculpture video
game rendering embroidered plush origins centered
"""
SHAPES = """
circle ring square triangle pentagon hexagon diamond cross star heart crescent bar half disc thin broad horizontal
vertical rising falling chequers dots rectangle ellipse line
"""
SETS = """
banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous flecked freckled
frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled matted meshed paisley perforated pitted
pleated polka porous potholed scaly smeared spiralled sprinkled stained stratified striped studded swirly veined waffled
woven wrinkled zigzagged
annual crop herbaceous vegetation highway industrial pasture permanent residential river sea lake forest field grass
airport beach harbor intersection meadow overpass parking runway stadium storage tank thermal terrace
shirt trouser pullover dress coat sandal sneaker bag ankle boot
alarm clock backpack batteries bed bike bottle bucket calculator calendar candles chair computer couch curtains desk
lamp drill eraser exit fan file cabinet flipflops flowers folder fork glasses hammer helmet kettle keyboard knives
laptop marker monitor mop mouse mug notebook oven pan paper clip pen pencil postit printer push pin radio refrigerator
ruler scissors screwdriver shelf sink soda speaker spoon table telephone toothbrush toys trash can tv webcam
abyssinian bengal birman bombay british shorthair maine coon persian ragdoll siamese sphynx beagle boxer pug
apple pie baklava beef burger burrito caesar salad cake cheese cheesecake chicken chocolate curry donuts dumplings eggs
fish fries ice cream noodles pasta pizza rice sandwich soup spaghetti steak sushi
rose tulip daisy lily iris orchid sunflower poppy lotus
"""


def pieces(text: str) -> list[str]:
    """What a text is made of, in lower case."""
    return [piece.lower() for piece in PIECE.findall(text.replace("_", " ")) if piece.strip()]


def class_names() -> Iterator[str]:
    """Of the sets under the data root, of several synonyms the first; then ImageNet's, as open_clip has them."""
    root = data_root()
    for path in sorted((root / "images").glob("*/info.json")):
        info = json.loads(path.read_text(encoding="utf-8"))
        yield str(info.get("caption_template", ""))
        yield from (name.split(",")[0] for name in info["class_names"])
    prepare()
    import open_clip

    yield from open_clip.IMAGENET_CLASSNAMES


def vocabulary(texts: Iterable[str]) -> list[str]:
    """`WORDS` words: those of the texts, each once, then numbers. Raises ValueError for more."""
    found = list(dict.fromkeys([*SIGNS, *(word for text in texts for word in pieces(text))]))
    if len(found) > WORDS:
        raise ValueError(f"{len(found)} words, {WORDS} ids")
    fresh = (str(number) for number in count() if str(number) not in set(found))
    return found + list(islice(fresh, WORDS - len(found)))


def main() -> None:
    found = vocabulary([CAPTIONS, SHAPES, *class_names(), SETS])
    VOCABULARY.write_text("\n".join(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
