"""Tests of synthetic/make.py and synthetic/judge.py. Run: python3 -m unittest discover models"""

import json
import random
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "synthetic"))
import judge  # noqa: E402
import make  # noqa: E402


class Photos(unittest.TestCase):
    def test_photographs_of_all_folders_are_linked_by_name(self):
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch)
            for name in ("a/anna.jpg", "a/notes.txt", "b/deep/ada.png"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(name)
            self.assertEqual(make.link_photos([root / "a", root / "b"], root / "all"), 2)
            self.assertEqual((root / "all/ada.png").read_text(), "b/deep/ada.png")
            (root / "b/anna.png").write_text("another anna")
            with self.assertRaisesRegex(make.MakeError, "one name"):
                make.link_photos([root / "a", root / "b"], root / "again")
            with self.assertRaisesRegex(make.MakeError, "no photographs"):
                make.link_photos([root / "c"], root / "none")


class Shortcuts(unittest.TestCase):
    def test_the_area_counts_pairs_and_ties_count_half(self):
        self.assertEqual(make.area([0.9, 0.8, 0.7, 0.6, 0.4, 0.2], [1, 1, 0, 1, 0, 0]), 8 / 9)
        self.assertEqual(make.area([5, 5, 5], [1, 0, 0]), 0.5)
        with self.assertRaises(make.MakeError):
            make.area([1, 2], [True, True])

    def test_a_number_that_predicts_the_label_is_an_error(self):
        generator = random.Random(1)
        labels = [generator.random() < 0.2 for _ in range(4000)]
        make.unrelated("noise", [generator.random() for _ in labels], labels)
        with self.assertRaisesRegex(make.MakeError, "the size predicts the label"):
            make.unrelated("the size", [generator.random() + label / 4 for label in labels], labels)

    def test_pixels_alone_have_no_mirror_features(self):
        line = {"file": "a.png", "ok": True, "mirrored": 0.3, "mirrored_head": 0.1, "mirrored_grid": [0.5] * 16}
        bare = make.without_mirrors(line)
        self.assertEqual((bare["mirrored"], bare["mirrored_head"], bare["mirrored_grid"]), (0, 0, [0] * 16))
        self.assertEqual((bare["file"], line["mirrored"]), ("a.png", 0.3))


class Judgements(unittest.TestCase):
    def test_the_sides_are_those_of_facemill(self):
        # As in src/training/example.rs.
        sides = [judge.is_test(name) for name in ("anna", "ada", "grace", "mary", "emmy")]
        self.assertEqual(sides, [True, False, True, False, True])

    def test_the_choice_depends_on_the_seed_alone(self):
        kinds = ("ok", "border", "ng")
        crops = [
            {"path": Path(f"{person}-{shot}.png"), "kind": kinds[shot % 3], "group": f"person {person}"}
            for person in range(40)
            for shot in range(12)
        ]
        chosen = judge.choose(crops, 100, random.Random(16))
        again = judge.choose(crops[::-1], 100, random.Random(16))
        self.assertEqual([crop["path"] for crop in chosen], [crop["path"] for crop in again])
        kinds = [crop["kind"] for crop in chosen]
        self.assertEqual([kinds.count(kind) for kind in ("ok", "border", "ng")], [35, 38, 27])
        for person in {crop["group"] for crop in chosen}:
            self.assertLessEqual(sum(crop["group"] == person for crop in chosen), judge.MOST_PER_PERSON)

    def test_judged_crops_get_their_verdict(self):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            judged = {judge.hash_of(self.crop(folder, name)): verdict for name, verdict in (("a", "ok"), ("b", "ng"))}
            lines = [{"file": f"{name}.png", "ok": False, "group": name} for name in "abc"]
            (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (folder / "border.jsonl").write_text("")
            self.crop(folder, "c")
            found = judge.labelled([folder], judged)
            verdicts = [(Path(line["file"]).name, line["ok"]) for line in found]
            self.assertEqual(verdicts, [("a.png", True), ("b.png", False)])

    def test_every_crop_was_judged_and_those_of_the_test_part_twice(self):
        judgements = judge.judgements()
        self.assertEqual(len(judgements), 646)
        test = [row for row in judgements if row["part"] == "test"]
        self.assertEqual(len(test), 323)
        self.assertTrue(all({row["first"], row["second"]} <= {"ok", "ng"} for row in test))
        self.assertEqual(sum(row["first"] == row["second"] for row in test), 316)

    @staticmethod
    def crop(folder, name):
        (folder / f"{name}.png").write_text(f"picture {name}")
        return folder / f"{name}.png"


if __name__ == "__main__":
    unittest.main()
