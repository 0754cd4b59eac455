"""The real clips by name: scene, grade and fold, written down once so that no score can choose its own test.

Clips of one scene stand in one fold. Scenes were sorted by kind and name and dealt to five folds in turn, once, before
anything was trained on them. Grades: A a still camera and clean swaying, B slight drift (a global similarity is taken
out), C shows where things move but not how. ``left-out`` are the seven loops that no embedded model before the shared
encoder was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

FOLDS = 5


@dataclass(frozen=True)
class RealClip:
    """What is known of a clip of the collection.

    Attributes:
        name: without suffix and without a trailing "loop".
        scene: clips of one scene stay on one side of a split.
        grade: A, B or C.
        kind: what it shows.
        fold: 0 to 4.
        left_out: of the first split of the 19 loops.
    """

    name: str
    scene: str
    grade: str
    kind: str
    fold: int
    left_out: bool = False


_TABLE = """
candle_2         candle          A candle   0  left-out
candle_3         candle          A candle   0  left-out
candle_white     candle_white    C candle   0
daffodil_a       daffodil        B flower   0
daffodil_b       daffodil        A flower   0
foxtail          foxtail         C grass    0
leaf_bokeh       leaf_bokeh      C leaves   0
meadow_umbel     meadow_umbel    A flower   0
meadow_wide      meadow_wide     A grass    0
snow_blossom_a   snow_blossom    B flower   0
snow_blossom_b   snow_blossom    B flower   0
snow_blossom_c   snow_blossom    A flower   0
snow_pine_a      snow_pine       B tree     0
snow_pine_b      snow_pine       A tree     0
timothy_grass    timothy_grass   B grass    0
tropical_leaves  tropical_leaves A leaves   0
weed_macro_a     weed_macro      B plant    0
weed_macro_b     weed_macro      B plant    0
wheat_ripe       wheat_ripe      B wheat    0
autumn_branch    autumn_branch   B tree     1
candle_block     candle_block    A candle   1
candle_yellow    candle_yellow   A candle   1
cat              cat             A hanging  1
daisies          daisies         C flower   1
grass_frost_a    grass_frost     A grass    1
grass_frost_b    grass_frost     B grass    1
grass_frost_c    grass_frost     B grass    1
leaves           leaves          A leaves   1
leaves_close     leaves          A leaves   1
pampas           pampas          C grass    1
pink-rose        pink-rose       A flower   1
sunset_herbs_a   sunset_herbs    B flower   1
sunset_herbs_b   sunset_herbs    B flower   1
tree_0           tree_0          A tree     1
wet_leaf         wet_leaf        A leaves   1
wet_leaf_b       wet_leaf        B leaves   1
6133103          6133103         A flower   2
acacia_windy     acacia_windy    B plant    2
candle_dark_a    candle_dark     A candle   2
candle_dark_b    candle_dark     A candle   2
candle_dark_c    candle_dark     A candle   2
glove            glove           A hanging  2
gum_canopy       gum_canopy      B tree     2
heather_grass_a  heather_grass   B grass    2
heather_grass_b  heather_grass   A grass    2
hibiscus         hibiscus        C flower   2
leaves_rain_a    leaves_rain     A leaves   2
leaves_rain_b    leaves_rain     A leaves   2
poppies_field    poppies_field   B flower   2
reed_rain        reed_rain       B grass    2
tree_1           tree_1          A tree     2  left-out
wildflower       wildflower      A flower   2
azalea           azalea          C flower   3
candle_glass     candle_glass    C candle   3
fern             fern            A plant    3  left-out
lake_reeds_a     lake_reeds      C grass    3
lake_reeds_b     lake_reeds      C grass    3
latern           latern          A hanging  3  left-out
latern_2         latern          A hanging  3  left-out
lavender_sky     lavender_sky    C flower   3
lime_leaves      lime_leaves     B leaves   3
park_tree_a      park_tree       B tree     3
park_tree_b      park_tree       B tree     3
poppies_sky      poppies_sky     C flower   3
reeds_sunset_a   reeds_sunset    A grass    3
reeds_sunset_b   reeds_sunset    A grass    3
tree_window_cv   tree_window_cv  C tree     3
yellow           yellow          A flower   3
candle_red       candle_red      B candle   4
cherryblossm     cherryblossm    A flower   4
grapes           grapes          A plant    4
lotus            lotus           A flower   4
meadow_vetch     meadow_vetch    A grass    4
oak_leaves       oak_leaves      C leaves   4
paper            paper           A hanging  4  left-out
pine_canopy      pine_canopy     B tree     4
red_roses        red_roses       A flower   4
steppe           steppe          C grass    4
wheat_pink_a     wheat_pink      B wheat    4
wheat_pink_b     wheat_pink      B wheat    4
yellow_cosmos_a  yellow_cosmos   A flower   4
yellow_cosmos_b  yellow_cosmos   A flower   4
"""


def _read(table: str) -> dict[str, RealClip]:
    rows = [line.split() for line in table.strip().splitlines()]
    return {
        name: RealClip(name, scene, grade, kind, int(fold), bool(rest))
        for name, scene, grade, kind, fold, *rest in rows
    }


REAL_CLIPS = _read(_TABLE)


def clips_of_fold(fold: int) -> set[str]:
    """Names of the clips of a fold.

    Raises:
        ValueError: there is no such fold.
    """
    if not 0 <= fold < FOLDS:
        raise ValueError(f"fold is {fold}; choose 0 to {FOLDS - 1}")
    return {clip.name for clip in REAL_CLIPS.values() if clip.fold == fold}
