"""Work shared out among devices."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec


def num_devices(mesh: Mesh | None) -> int:
    """How many devices share the work: one without a mesh."""
    return 1 if mesh is None else mesh.size


def over_devices(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """`function` with the leading axis of its arguments and results cut among the devices of a mesh.

    Each device runs the same program on its part and none waits for another, so what a part comes to
    does not depend on how many there are.
    """
    if mesh is None:
        return function
    rows = PartitionSpec(mesh.axis_names)
    return jax.shard_map(
        function, mesh=automatic(mesh), in_specs=rows, out_specs=rows, check_vma=False
    )


def shared_out(tree: Any) -> Any:
    """Arrays whose leading axis is cut among the devices of the mesh in force, if there is one; those
    that the devices do not divide stay whole on each."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return tree
    rows = PartitionSpec(mesh.axis_names)

    def cut(a):
        return a if len(a) % mesh.size else jax.lax.with_sharding_constraint(a, rows)

    return jax.tree.map(cut, tree)


def check_mesh(mesh: Any) -> None:
    """Refuses what is no mesh."""
    if mesh is not None and not isinstance(mesh, Mesh):
        raise ValueError(
            f"`mesh` must be a `jax.sharding.Mesh`, got {type(mesh).__name__}; for all devices, use "
            "`jax.make_mesh((jax.device_count(),), ('data',))`."
        )
    if mesh is not None and jax.process_count() > 1:
        there = {device.process_index for device in mesh.devices.flat}
        if there != {jax.process_index()} and len(there) != jax.process_count():
            raise ValueError(
                f"`mesh` must have devices of this process alone or of all {jax.process_count()} "
                f"processes, got those of {sorted(there)}."
            )


def automatic(mesh: Mesh) -> Mesh:
    """The mesh with axes along which the compiler may cut what it likes, as `shared_out` needs."""
    return Mesh(
        mesh.devices, mesh.axis_names, axis_types=(jax.sharding.AxisType.Auto,) * mesh.devices.ndim
    )
