"""The kubelet's device plugin API, version v1beta1: its messages and methods, as far as this plugin speaks it.

The messages are described here in Python instead of being generated from a .proto file. Field numbers are the API's;
a field that is not described is skipped when it is read.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

VERSION = "v1beta1"
REGISTER = f"/{VERSION}.Registration/Register"
DEVICE_PLUGIN = f"{VERSION}.DevicePlugin"

_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_BOOL = descriptor_pb2.FieldDescriptorProto.TYPE_BOOL

# message -> (field number, field name, type or the name of a message, whether it repeats)
_MESSAGES: dict[str, list[tuple[int, str, int | str, bool]]] = {
    "Empty": [],
    "DevicePluginOptions": [
        (1, "pre_start_required", _BOOL, False),
        (2, "get_preferred_allocation_available", _BOOL, False),
    ],
    "RegisterRequest": [
        (1, "version", _STRING, False),
        (2, "endpoint", _STRING, False),
        (3, "resource_name", _STRING, False),
        (4, "options", "DevicePluginOptions", False),
    ],
    "Device": [(1, "ID", _STRING, False), (2, "health", _STRING, False)],
    "ListAndWatchResponse": [(1, "devices", "Device", True)],
    "ContainerAllocateRequest": [(1, "devices_ids", _STRING, True)],
    "AllocateRequest": [(1, "container_requests", "ContainerAllocateRequest", True)],
    "CDIDevice": [(1, "name", _STRING, False)],
    "ContainerAllocateResponse": [(5, "cdi_devices", "CDIDevice", True)],
    "AllocateResponse": [(1, "container_responses", "ContainerAllocateResponse", True)],
}


def _describe_file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="device_plugin.proto", package=VERSION, syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, name, kind, repeats in fields:
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if repeats else field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = field.TYPE_MESSAGE, f".{VERSION}.{kind}"
            else:
                field.type = kind
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_describe_file())


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{VERSION}.{name}"))


Empty = _message("Empty")
DevicePluginOptions = _message("DevicePluginOptions")
RegisterRequest = _message("RegisterRequest")
Device = _message("Device")
ListAndWatchResponse = _message("ListAndWatchResponse")
ContainerAllocateRequest = _message("ContainerAllocateRequest")
AllocateRequest = _message("AllocateRequest")
CDIDevice = _message("CDIDevice")
ContainerAllocateResponse = _message("ContainerAllocateResponse")
AllocateResponse = _message("AllocateResponse")
