"""Clinical metrics that need packages and weights of their own, each computed by a worker in a separate process.

What the rest of rrg uses (everything else in this package is how it is done)::

    from rrg.metrics.external.scoring import score_external

    found = score_external(
        ["chexbert", "radgraph"],          # names in `rrg.metrics.external.catalogue.METRICS`
        studies, generated, references,    # three sequences of N: ids, raw reports, raw reference reports
        bootstrap=1000, seed=0,
    )                                      # → metric name → `rrg.metrics.external.result.ExternalResult`

A result holds, for each of the metric's scores (`radgraph_simple`, `chexbert_observation_micro_f1`, …):

- `values`: one float per study in the order given, None where the study failed; absent for scores of the whole set (label F1);
- `aggregate`: the score over the studies that did not fail, with its bootstrap interval and which way is better;
- `failed`: the study ids that have no value, with a reason each; they are in no mean;
- `versions` of the worker's packages, `weights` (file → sha256), `notes` (how many reports were empty, cut, …);
- or, in place of all that, `missing`: why there is no score at all. What could not be computed is never zero or blank.

`scoring.Conditions` says how workers are run (files, interpreters, device, patience), `scoring.check_files` checks the files of
metrics without running them, `availability.availability` says whether a metric can be computed and why not. A wrong sha256, an
unknown metric or a named path that does not exist is the user's mistake: `rrg.errors.UserError`.

The worker's protocol (`workers/wire.py`): JSON lines over pipes. Parent → worker: one line of settings, then lines
`{"batch": [{"id": 0, "generated": …, "reference": …}, …]}`. Worker → parent: `{"ready": {"versions": …}}` or
`{"refused": reason}`, then per study `{"id": 0, "result": {…}}` or `{"id": 0, "error": kind}`, then `{"done": count}`.
The worker's other output goes to a log in which lines that repeat words of a report are withheld.
"""
