"""`nashbench store`: what is in a store, and whether it is as it was written."""

from __future__ import annotations

import json as json_module
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

if TYPE_CHECKING:
    from harness.store.artifacts import Store

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Where artifacts live, shared by sweeps. Default: $NASHBENCH_STORE or runs/store.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

app = typer.Typer(no_args_is_help=True, help="What is in a store, and whether it is as it was written.")


def open_store(path: Path | None) -> Store:
    """The store that a command line names. Raises ValueError for one of another format."""
    from harness.store.artifacts import Store

    return Store(path or Path(os.environ.get("NASHBENCH_STORE", "runs/store")))


def _open_existing(path: Path | None) -> Store:
    store = open_store(path)
    if not store.root.is_dir():
        raise ValueError(f"there is no store at {store.root}; give one with --store DIR or NASHBENCH_STORE")
    return store


@app.command(name="ls")
def list_artifacts(store: StoreOption = None, json: Json = False) -> None:
    """Artifacts by kind: how many, their bytes, the seconds they took, and when the newest came.

    [bold]Examples[/bold]

    nashbench store ls

    nashbench store ls --store /shared/store --json
    """
    opened = _open_existing(store)
    kinds, unreadable = _kinds(opened)
    if json:
        typer.echo(json_module.dumps({"store": str(opened.root), "kinds": kinds, "unreadable": unreadable}, indent=1))
        return
    table = Table("kind", "artifacts", "bytes", "seconds", "newest", box=None)
    for kind, totals in kinds.items():
        figures = (f"{totals['artifacts']:,}", f"{totals['bytes']:,}", f"{totals['seconds']:,.1f}")
        table.add_row(kind, *figures, totals["newest"])
    Console().print(table)
    if unreadable:
        typer.echo(f"{len(unreadable)} without a manifest that can be read: see nashbench store verify")


def _kinds(store: Store) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Totals by kind, and the folders of artifacts whose manifest cannot be read."""
    from harness.store.integrity import MANIFEST, Difference, read_manifest

    kinds: dict[str, dict[str, Any]] = {}
    unreadable: list[str] = []
    for folder in store.artifacts():
        try:
            manifest, written = read_manifest(folder), (folder / MANIFEST).stat().st_mtime
        except (Difference, OSError):
            unreadable.append(str(folder))
            continue
        empty: dict[str, Any] = {"artifacts": 0, "bytes": 0, "seconds": 0.0, "newest": ""}
        totals = kinds.setdefault(manifest["kind"], empty)
        totals["artifacts"] += 1
        totals["bytes"] += sum(file["bytes"] for file in manifest["files"].values())
        totals["seconds"] = round(totals["seconds"] + manifest.get("seconds", 0.0), 3)
        totals["newest"] = max(totals["newest"], datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds"))
    return kinds, unreadable


@app.command()
def verify(
    store: StoreOption = None,
    quarantine: Annotated[
        bool, typer.Option("--quarantine", help="Move damaged artifacts away; the next sweep computes them again.")
    ] = False,
    json: Json = False,
) -> None:
    """Read every file of every artifact and compare it with its manifest; exit code 1 where something is damaged.

    Nothing is moved without --quarantine. Files that may not be read are named too, and never moved.

    [bold]Examples[/bold]

    nashbench store verify

    nashbench store verify --store /shared/store --quarantine
    """
    opened = _open_existing(store)
    folders = opened.artifacts()
    damaged = _damaged(folders, opened.quarantine if quarantine else None)
    if json:
        document = {"store": str(opened.root), "artifacts": len(folders), "damaged": damaged}
        typer.echo(json_module.dumps(document, indent=1))
    else:
        for row in damaged:
            typer.echo(f"{row['path']}: {row['difference']}" + (f"; now {row['moved']}" if row["moved"] else ""))
        typer.echo(f"{len(folders)} artifacts, {len(damaged)} damaged")
    raise typer.Exit(1 if damaged else 0)


def _damaged(folders: list[Path], move: Callable[[Path, str], Path | None] | None) -> list[dict[str, Any]]:
    """Where an artifact differs from its manifest: its path, how, and where it was moved to."""
    from harness.store.integrity import Difference, check_whole

    rows: list[dict[str, Any]] = []
    console = Console(stderr=True)
    for folder in track(folders, "verifying", console=console, transient=True, disable=not console.is_terminal):
        try:
            check_whole(folder)
        except Difference as difference:
            moved = move(folder, str(difference)) if move else None
            rows.append({"path": str(folder), "difference": str(difference), "moved": str(moved) if moved else None})
        except OSError as error:
            reason = f"{error.filename} cannot be read: {error.strerror}"
            rows.append({"path": str(folder), "difference": reason, "moved": None})
    return rows
