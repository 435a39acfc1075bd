"""What PyTorch reaches where openlora_gpu_kernel measures, on the same GPU: usage torch_bench.py [file.json].

Shapes of Llama-3.1-8B in bf16, random values. Products of the base by cuBLAS (torch.matmul), and shrink and expand of q, k and v
for distinct adapters of rank 16, a row each, as a gather of their matrices in two batched products (torch.bmm), which takes adapters
of one rank that stand in one tensor. Every launch reads bytes that none of the last 128 MiB did; times are medians of ten runs
of a CUDA graph, divided by its launches.
"""

import json
import statistics
import sys

import torch

COLD_BYTES = 128 << 20
HIDDEN, KV, INTERMEDIATE = 4096, 1024, 14336
RANK = 16
RUNS = 10
SHAPES = {
    "qkv": (HIDDEN, [HIDDEN + 2 * KV]),
    "o": (HIDDEN, [HIDDEN]),
    "gate, up": (HIDDEN, [2 * INTERMEDIATE]),
    "down": (INTERMEDIATE, [HIDDEN]),
}


def microseconds(launch):
    launch()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    times = []
    for run in range(RUNS + 2):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if run >= 2:
            times.append(1e3 * begin.elapsed_time(end))
    return statistics.median(times)


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def base(name, rows):
    columns, (outs,) = SHAPES[name]
    copies = COLD_BYTES // (2 * columns * outs) + 1
    weights = [random(outs, columns) for _ in range(copies)]
    x = random(rows, columns)
    time = microseconds(lambda: [torch.matmul(x, weight.T) for weight in weights]) / copies
    return {"name": f"cuBLAS {name}, rows {rows}", "bytes": 2 * columns * outs, "us": time}


def lora(adapters):
    outs = [HIDDEN, KV, KV]
    size = sum(2 * RANK * (HIDDEN + out) for out in outs) * adapters
    layers = COLD_BYTES // size + 1
    # All adapters there are; a batch names as many, in any order.
    a = [[random(adapters, HIDDEN, RANK) for _ in outs] for _ in range(layers)]
    b = [[random(adapters, RANK, out) for out in outs] for _ in range(layers)]
    named = torch.randperm(adapters, device="cuda")
    x = random(adapters, 1, HIDDEN)
    ys = [random(adapters, 1, out) for out in outs]

    def launch():
        for layer in range(layers):
            for site, y in enumerate(ys):
                y += torch.bmm(torch.bmm(x, a[layer][site][named]), b[layer][site][named])

    return {"name": f"bmm of gathered qkv r16, distinct adapters {adapters}", "bytes": size, "us": microseconds(launch) / layers}


def main(path):
    results = [base(name, rows) for name in SHAPES for rows in (1, 8, 32, 64, 512)]
    results += [lora(adapters) for adapters in (1, 4, 16, 32, 64)]
    for result in results:
        result["gbps"] = result["bytes"] / result["us"] / 1e3
        print(f"{result['name']:52} {result['us']:9.2f} us {result['gbps']:8.1f} GB/s")
    if path:
        with open(path, "w") as file:
            json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "results": results}, file, indent=2)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
