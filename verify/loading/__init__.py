"""From a network file or torch module to a checked `Graph`.

network = load("net.onnx")
network.graph, network.inputs[0].shape, network.runtime.run(x)
"""

from .network import Network, load
from .onnx_import import TensorInfo
from .supported import OperatorSupport, supported_onnx_operators

__all__ = ["Network", "OperatorSupport", "TensorInfo", "load", "supported_onnx_operators"]
