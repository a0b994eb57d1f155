# SPDX-FileCopyrightText: Copyright (c) Endo-FM for MONAI contributors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import monai
import pytest
from monai.bundle import ComponentLocator, ConfigParser
from monai.transforms import LoadImage
from monai.transforms.io.array import SUPPORTED_READERS

import endofm_monai
from endofm_monai.data import EndoFMClipReader


def public_components() -> dict[str, set[str]]:
    """Modules that define each class or function that a room of the package offers."""
    defined: dict[str, set[str]] = {}
    for found in pkgutil.walk_packages(endofm_monai.__path__, "endofm_monai."):
        is_room = found.ispkg or found.name.count(".") == 1
        if is_room and not found.name.startswith("endofm_monai.apps"):
            room = import_module(found.name)
            for name, value in vars(room).items():
                is_component = inspect.isclass(value) or inspect.isfunction(value)
                if is_component and not name.startswith("_") and value.__module__.startswith(found.name):
                    defined.setdefault(name, set()).add(value.__module__)
    return defined


COMPONENTS = public_components()


def test_names_are_unique_and_not_those_of_monai():
    assert {name: modules for name, modules in COMPONENTS.items() if len(modules) > 1} == {}
    table = ComponentLocator()
    assert table.get_component_module_name("EndoFM") == "endofm_monai.networks.nets.endofm"
    monais = ComponentLocator()
    monais.MOD_START = "monai."
    assert [name for name in COMPONENTS if monais.get_component_module_name(name)] == []


@pytest.fixture(scope="module")
def parser() -> ConfigParser:
    """Each component by its short name and by its full path; to look for them takes MONAI a while."""
    paths = {name: f"{module}.{name}" for name, (module,) in COMPONENTS.items()}
    return ConfigParser({key: {"_target_": key, "_mode_": "callable"} for key in (*paths, *paths.values())})


@pytest.mark.parametrize("name", sorted(COMPONENTS))
def test_short_names_and_full_paths_resolve(name, parser):
    (module,) = COMPONENTS[name]
    assert parser.locator.get_component_module_name(name) == module
    expected = getattr(import_module(module), name)
    for key in (name, f"{module}.{name}"):
        resolved = parser.get_parsed_content(key)
        assert getattr(resolved, "func", resolved) is expected


def test_registering_again_changes_nothing_and_keeps_what_others_added(monkeypatch):
    monkeypatch.setattr(ComponentLocator, "MOD_START", ("monai", "someone_else"))
    endofm_monai.register()
    endofm_monai.register()
    assert ComponentLocator.MOD_START == ("monai", "someone_else", "endofm_monai")
    assert SUPPORTED_READERS["endofmclipreader"] is EndoFMClipReader
    assert "EndoFMClipReader" in {type(reader).__name__ for reader in LoadImage().readers}


def test_monai_version_is_the_tested_one():
    assert monai.__version__.startswith("1.6.")
