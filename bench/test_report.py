"""python3 -m unittest discover -s bench"""

import unittest

import mesh
import report
from measure import Sample
from scenarios import SCENARIOS, groups


def result(samples: dict[str, list[tuple[str, int, float | None]]]) -> report.Result:
    """Scenario to (contender, round, CPU time); no time is an invalid sample."""
    made = {
        name: [Sample(c, r, None if us else "broken", {"cpu_us": us} if us else {}) for c, r, us in rows]
        for name, rows in samples.items()
    }
    return report.Result(conditions={"began": "?", "cpu": "?", "memory": "?", "kernel": "?", "commit": "?"}, versions={}, rounds=3, seconds=1, samples=made)


class Ratios(unittest.TestCase):
    def test_pairs_are_of_the_same_round(self):
        rows = [("nginx", 0, 10.0), ("rhumb", 0, 5.0), ("nginx", 1, 20.0), ("rhumb", 1, 10.0), ("nginx", 2, 40.0), ("rhumb", 2, 36.0)]
        self.assertEqual(result({"h1-1k": rows}).ratio("h1-1k", "cpu_us", "rhumb", "nginx"), 0.5)

    def test_a_round_with_an_invalid_sample_counts_for_nobody(self):
        rows = [("nginx", 0, 10.0), ("rhumb", 0, None), ("nginx", 1, 10.0), ("rhumb", 1, 7.0)]
        found = result({"h1-1k": rows})
        self.assertEqual(found.ratio("h1-1k", "cpu_us", "rhumb", "nginx"), 0.7)
        self.assertEqual([s.round for _, s in found.invalid()], [0])

    def test_the_best_peer_is_never_rhumb(self):
        rows = [("nginx", 0, 10.0), ("haproxy", 0, 9.0), ("rhumb", 0, 1.0)]
        self.assertEqual(result({"h1-1k": rows}).best_peer("h1-1k", "cpu_us"), "haproxy")


class Promises(unittest.TestCase):
    def line(self, name: str, samples: dict) -> str:
        return report.summary_line(SCENARIOS[name], result(samples))

    def test_each_broken_promise_is_named(self):
        for rhumb, expected in ((7.0, "kept"), (8.5, "missed: best peer over 0.8"), (20.0, "missed: best peer over 0.8, Envoy over 0.25")):
            rows = [("nginx", 0, 10.0), ("envoy", 0, 40.0), ("rhumb", 0, rhumb)]
            self.assertIn(f"| {expected} |", self.line("h1-1k", {"h1-1k": rows}))

    def test_routes_must_cost_the_same(self):
        rows = {"routes-1": [("nginx", 0, 20.0), ("rhumb", 0, 5.0)], "routes-10000": [("nginx", 0, 20.0), ("rhumb", 0, 6.0)]}
        self.assertIn("missed: 1.20 of one route", self.line("routes-10000", rows))

    def test_a_document_can_be_made_of_nothing_but_failures(self):
        rows = [(c, r, None) for c in report.LABELS for r in range(2)]
        self.assertIn("broken", report.document(result({name: rows for name in SCENARIOS})))


class Sections(unittest.TestCase):
    def test_a_section_takes_the_place_of_its_name_and_stands_before_the_notes(self):
        page = "# B\n\n## Scenarios\n\nx\n\n## Mesh\n\nold\n\n## Notes\n\ny\n"
        found = report.put_section(page, "## Mesh\n\nnew\n")
        self.assertEqual([part.split("\n")[0] for part in found.split("\n## ")], ["# B", "Scenarios", "Mesh", "Notes"])
        self.assertNotIn("old", found)

    def test_what_others_measured_stays(self):
        found = report.keep_others("# B\n\n## Scenarios\n\n## Notes\n", "# A\n\n## Mesh\n\nm\n\n## Cost of seeing\n\nc\n\n## Notes\n\nold\n")
        self.assertIn("## Mesh\n\nm\n", found)
        self.assertIn("## Cost of seeing\n\nc\n", found)
        self.assertNotIn("old", found)


class Scale(unittest.TestCase):
    def test_the_tables_worst_common_change_is_judged(self):
        text = ("2000 proxies\n| change | proxies | p50 | p99 | longest | CPU |\n|---|---|---|---|---|---|\n"
                "| endpoint of a service | 37 | 10.2 ms | 21.0 ms | 25.4 ms | 2.60 ms |\n"
                "| endpoint of a service that all want | 2000 | 201.6 ms | 373.3 ms | 381.9 ms | 74.20 ms |\n152 MiB resident in the end\n")
        found = mesh.read_scale(text)
        self.assertEqual((found["longest_p99_ms"], found["resident_mib"], len(found["table"])), (373.3, 152, 4))


class Groups(unittest.TestCase):
    def test_scenarios_to_compare_are_run_together(self):
        found = [[s.name for s in group] for group in groups(list(SCENARIOS))]
        self.assertIn(["routes-1", "routes-100", "routes-10000"], found)
        self.assertEqual(sum(map(len, found)), len(SCENARIOS))


if __name__ == "__main__":
    unittest.main()
