from tests.simgpu.fixtures import machine, make_machine, simgpu_libraries

__all__ = ["machine", "make_machine", "simgpu_libraries"]
