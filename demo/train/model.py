"""A Llama decoder small enough to pre-train on two cores, and its optimizer. Names are those of transformers."""

import torch
from torch import nn
from torch.nn import functional as F

NAME = "openlora/demo-base"
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 128, 4, 4, 2, 32, 384
ROPE_THETA, EPS = 1000.0, 1e-5


def rope_tables(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos, sin: [length, head_dim], the two halves alike."""
    inverse = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
    angle = torch.arange(length).float()[:, None] * inverse
    return torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = HEAD_DIM // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def linear(rows: int, columns: int) -> nn.Linear:
    return nn.Linear(columns, rows, bias=False)


class RmsNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(HIDDEN))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.weight


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = linear(HEADS * HEAD_DIM, HIDDEN)
        self.k_proj = linear(KV_HEADS * HEAD_DIM, HIDDEN)
        self.v_proj = linear(KV_HEADS * HEAD_DIM, HIDDEN)
        self.o_proj = linear(HIDDEN, HEADS * HEAD_DIM)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q = rotate(self.q_proj(x).view(batch, length, HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(batch, length, KV_HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(batch, length, KV_HEADS, HEAD_DIM).transpose(1, 2)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, HEADS * HEAD_DIM))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj, self.up_proj = linear(INNER, HIDDEN), linear(INNER, HIDDEN)
        self.down_proj = linear(HIDDEN, INNER)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.self_attn, self.mlp = Attention(), Mlp()
        self.input_layernorm, self.post_attention_layernorm = RmsNorm(), RmsNorm()

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Trunk(nn.Module):
    def __init__(self, vocab: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = RmsNorm()

    def forward(self, ids, cos, sin):
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class Llama(nn.Module):
    """ids [batch, length] -> hidden [batch, length, HIDDEN]; the caller applies `lm_head` where it needs logits."""

    def __init__(self, vocab: int, length_max: int):
        super().__init__()
        self.model, self.lm_head = Trunk(vocab), linear(vocab, HIDDEN)
        self.tables = rope_tables(length_max)
        for name, p in self.named_parameters():
            if "embed" in name:
                nn.init.normal_(p, std=0.5)
            elif any(part in name for part in ("o_proj", "down_proj", "lm_head")):
                nn.init.zeros_(p)
            elif p.ndim == 2:
                nn.init.normal_(p, std=0.5 * p.shape[1] ** -0.5)

    def forward(self, ids):
        cos, sin = self.tables
        return self.model(ids, cos[: ids.shape[1]], sin[: ids.shape[1]])


def orthogonalize(g: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz, 5 steps, on a stack [n, rows, columns]. Jordan 2024, kellerjordan.github.io/posts/muon."""
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = g.shape[1] > g.shape[2]
    x = g.mT if is_tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; matrices of one shape are handled as one stack."""

    def __init__(self, params, lr: float = 0.02, momentum: float = 0.95):
        super().__init__(list(params), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                by_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), stack in by_shape.items():
                grads = torch.stack([p.grad for p in stack])
                state = self.state[stack[0]]
                velocity = state.setdefault("velocity", torch.zeros_like(grads))
                velocity.lerp_(grads, 1 - group["momentum"])
                update = orthogonalize(grads.lerp(velocity, group["momentum"]))
                scale = group["lr"] * max(1.0, rows / columns) ** 0.5
                for p, u in zip(stack, update):
                    p.sub_(u, alpha=scale)
