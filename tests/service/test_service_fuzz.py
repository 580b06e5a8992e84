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
from waiting import wait_for_end

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
          response_schema_conformance, negative_data_rejection, unsupported_method, missing_required_header,
          use_after_free]  # fmt: skip
MAY_FAIL = [negative_data_rejection]
"""Where an id that was wrong is replaced by one that is right."""

HOST = {"Host": "127.0.0.1"}
EXAMPLES = 25


@pytest.mark.slow
def test_no_request_gets_an_answer_that_is_not_described(start):
    client = start()
    taken = client.post("/api/jobs", json={"slide": "slide.tiff"}).json()
    assert wait_for_end(client, taken["id"])["status"] == "done"
    app = client.app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HOST)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 13
    answered = [_answers(operation, taken["id"]) for operation in operations]
    # It did get through to what it was to try.
    for operation, statuses in zip(operations, answered, strict=True):
        of_jobs = "{job_id}" in operation.path and "cancel" not in operation.path
        assert not of_jobs or 200 in statuses, (operation.path, statuses)
    assert client.get("/api/service").json()["worker"] == "ready"


def _answers(operation, done: str) -> set[int]:
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
    @given(case=operation.as_strategy(), known=st.booleans())
    def ask(case, known):
        known = known and "job_id" in case.path_parameters
        if known:
            case.path_parameters["job_id"] = done  # else every request is for a job that there is not
        response = case.call(headers=HOST)
        case.validate_response(response, checks=[check for check in CHECKS if check not in MAY_FAIL or not known])
        statuses.add(response.status_code)

    ask()
    return statuses
