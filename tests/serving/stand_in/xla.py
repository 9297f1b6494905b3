"""Which signatures of a graph XLA must compile before they answer."""

from __future__ import annotations

MARK = "_XlaMustCompile"


def compiled_signatures(graph, signatures):
    """The names of the signatures whose outputs such a function or operation makes."""
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    found = set()
    for name, signature in signatures.items():
        tensors = [info.name for info in signature.outputs.values()]
        waiting = [graph.get_tensor_by_name(tensor).op for tensor in tensors]
        seen, nodes = set(waiting), []
        while waiting:
            operation = waiting.pop()
            nodes.append(operation.node_def)
            makers = [tensor.op for tensor in operation.inputs]
            fresh = {*makers, *operation.control_inputs} - seen
            seen |= fresh
            waiting += fresh
        if any(_is_marked(node, library, set()) for node in nodes):
            found.add(name)
    return found


def _is_marked(node, library, visited):
    if node.attr[MARK].b if MARK in node.attr else False:
        return True
    for value in node.attr.values():
        for called in (value.func.name, *(each.name for each in value.list.func)):
            if called in library and called not in visited:
                visited.add(called)
                function = library[called]
                if MARK in function.attr and function.attr[MARK].b:
                    return True
                if any(_is_marked(n, library, visited) for n in function.node_def):
                    return True
    return False
