"""docker/compose.yaml gives its services no more than they need."""

from typing import Any

import pytest
from ruamel.yaml import YAML

from shop import ROOT

COMPOSE: Any = YAML(typ="safe").load((ROOT / "docker/compose.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_can_write_to_its_volumes_alone_and_is_seen_from_this_machine_alone(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    # What goes on for ever says where its health is asked for; the others end.
    assert ("HEALTH_URL" in service.get("environment", {})) == (service.get("restart") == "unless-stopped")
