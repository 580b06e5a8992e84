"""Requests made up from the description: none is answered with a fault, all answers are as described."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)
from waiting import wait_for, wait_for_end

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
          response_schema_conformance, negative_data_rejection, unsupported_method, missing_required_header,
          use_after_free]  # fmt: skip
MAY_FAIL = [negative_data_rejection]
"""Where an id that was wrong is replaced by one that is right."""

HOST = {"Host": "127.0.0.1"}
EXAMPLES = 25

NEVER = {
    "/api/jobs/{job_id}/cancel": "the job has ended",
    "/api/slides/{slide_id}/label.jpg": "not without --show-label",
}
"""What is never answered with 200 here, and why."""


@pytest.mark.slow
def test_no_request_gets_an_answer_that_is_not_described(start):
    client = start()
    taken = client.post("/api/jobs", json={"slide": "slide.tiff"}).json()
    assert wait_for_end(client, taken["id"])["status"] == "done"
    (row,) = wait_for(lambda: client.get("/api/run").json()["slides"])
    app = client.app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 24
    known = _Known(client, taken["id"], row["id"])
    answered = [_answers(operation, known) for operation in operations]
    # It did get through to what it was to try.
    for operation, statuses in zip(operations, answered, strict=True):
        of_results = "_id}" in operation.path and operation.path not in NEVER
        assert not of_results or 200 in statuses, (operation.method, operation.path, statuses)
    assert client.get("/api/service").json()["worker"] == "ready"


class _Known:
    """Puts what there is into made-up requests: else each is for a job or a slide that there is not."""

    def __init__(self, client, job: str, slide: str) -> None:
        self._client, self._ids = client, {"job_id": job, "slide_id": slide}

    def fill(self, case) -> bool:
        """Whether there was anything to put in."""
        given = case.path_parameters
        names = self._ids.keys() & given.keys()
        given.update({name: self._ids[name] for name in names})
        for name, count in {"level": 11, "col": 2, "row": 2}.items():
            if isinstance(given.get(name), int):
                given[name] %= count
        if case.method.upper() == "PUT":
            seen = self._client.get(f"/api/slides/{given['slide_id']}/annotations").headers["ETag"]
            case.headers = {**(case.headers or {}), "If-Match": seen}
        return bool(names)


def _answers(operation, known: _Known) -> set[int]:
    """The statuses of answers to made-up requests, all of which are as described."""
    statuses = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=operation.as_strategy(), filled=st.booleans())
    def ask(case, filled):
        filled = filled and known.fill(case)
        response = case.call(headers=HOST)
        case.validate_response(response, checks=[check for check in CHECKS if check not in MAY_FAIL or not filled])
        statuses.add(response.status_code)

    ask()
    return statuses
