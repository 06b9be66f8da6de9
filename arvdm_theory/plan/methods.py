"""The catalogue of published methods: each states its plan, or says which requirement or field it breaks.

Verdicts:

- ``exact``: levels, order, window, references, visibility and initialisation are the method's own;
- ``approximate``: a plan stands for it, and ``note`` names what is lost;
- ``outside``: no plan does. Nothing is bent to pass: :meth:`Method.build` raises the :class:`PlanError` that names
  the requirement or field.

Three things no plan holds, for any method: the sampler's update (DDIM, Euler, noising a prediction again), which
is the reverse step's, and named beside the plan where it was read; how the network was trained; and what it is
conditioned on beside frames (text, actions): read every law as conditional on that.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from arvdm_theory.plan import published
from arvdm_theory.plan.plan import Plan
from arvdm_theory.plan.references import NoReferences, PlanError, References

__all__ = ["METHODS", "REQUIREMENTS", "Method", "Verdict", "fifo", "method", "outpainting"]

Verdict = Literal["exact", "approximate", "outside"]

#: The three requirements of Meta-ARVDM, as :class:`PlanError` names them.
REQUIREMENTS = ("monotonicity", "circularity", "0-T boundary")


def outpainting(
    window: int = 2,
    references: References = NoReferences,
    reverse_steps: int = 20,
    init_steps: int = 20,
    horizon: float = 6.0,
    floor: float = 0.0,
    spacing: str = "uniform",
) -> Plan:
    """Outpainting (chunk continuation): w = Δ, every frame from T to 0 together."""
    return Plan(
        input_levels=(horizon,) * window,
        stride=window,
        horizon=horizon,
        reverse_steps=reverse_steps,
        init_steps=init_steps,
        references=references,
        floor=floor,
        spacing=spacing,
        name="outpainting",
    )


def fifo(
    window: int = 4,
    references: References = NoReferences,
    reverse_steps: int = 10,
    init_steps: int = 20,
    horizon: float = 6.0,
    floor: float = 0.0,
    spacing: str = "uniform",
) -> Plan:
    """FIFO-Diffusion's diagonal denoising, idealised: Δ = 1, t^I_j = jT/w on the OU clock, any number of steps.

    What the published sampler does, on its own schedule, is
    :func:`arvdm_theory.plan.published.fifo_diffusion`.
    """
    return Plan(
        input_levels=tuple(j * horizon / window for j in range(1, window + 1)),
        stride=1,
        horizon=horizon,
        reverse_steps=reverse_steps,
        init_steps=init_steps,
        references=references,
        floor=floor,
        spacing=spacing,
        name="fifo",
    )


@dataclass(frozen=True)
class Method:
    """One published method.

    Attributes:
        key: its name on the command line.
        title: what its authors call it.
        citation: first author and year.
        arxiv: arXiv number; None where there is no paper.
        builder: a function of the method's parameters, the published ones being its defaults.
        verdict: ``exact``, ``approximate`` or ``outside``.
        note: what the plan loses, or what breaks.
        checked: which sources were read, and for what; empty if none was.
        step: the reverse step that its sampler makes, as ledgers and samplers take it, where its source was read
            for that; else empty.
    """

    key: str
    title: str
    citation: str
    arxiv: str | None
    builder: Callable[..., Plan]
    verdict: Verdict
    note: str
    checked: str
    step: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters and their published values."""
        return {name: p.default for name, p in inspect.signature(self.builder).parameters.items()}

    @property
    def source(self) -> str:
        """What was checked, for printing."""
        return f"checked: {self.checked}" if self.checked else "not checked"

    def build(self, **overrides: Any) -> Plan:
        """The plan, with the published parameters or smaller ones.

        Raises:
            PlanError: the parameters do not fit together, there is no such parameter, or the method is outside.
        """
        unknown = sorted(set(overrides) - set(self.parameters))
        if unknown:
            known = ", ".join(self.parameters) or "none"
            raise PlanError(f"parameters: {self.key} has no parameter {', '.join(unknown)}; it has {known}")
        return self.builder(**overrides)

    def broken(self) -> tuple[str, str] | None:
        """What building the published plan breaks, as (requirement or field, message); None if it holds.

        Every plan that can be built meets :data:`REQUIREMENTS`.
        """
        try:
            self.build()
        except PlanError as error:
            name, _, message = str(error).partition(": ")
            return name, message
        return None


def method(key: str) -> Method:
    """The method of that key.

    Raises:
        PlanError: there is none; the message proposes the nearest keys.
    """
    for entry in METHODS:
        if entry.key == key:
            return entry
    keys = [entry.key for entry in METHODS]
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.4) or keys
    raise PlanError(f"no method {key!r} in the catalogue; did you mean {', '.join(near)}?")


_INFINITE = "pure noise is an infinite OU level, here the finite horizon T"
_GIVEN = "the first context frames are real there; here the initialisation makes them"
_UNMASKED = "the initialisation is not masked here"
_CARRIED = "cached keys carry on what they saw of older frames"

METHODS: tuple[Method, ...] = (
    Method(
        key="outpainting",
        title="Error Analyses of Auto-Regressive Video Diffusion Models",
        citation="Wang et al. 2025",
        arxiv="2503.10704",
        builder=outpainting,
        verdict="exact",
        note="chunk continuation as the framework defines it",
        checked="the three requirements, on the paper's project page",
    ),
    Method(
        key="mcvd",
        title="MCVD: Masked Conditional Video Diffusion",
        citation="Voleti et al. 2022",
        arxiv="2205.09853",
        builder=published.mcvd,
        verdict="approximate",
        note=f"{_GIVEN}",
        checked=(
            "frames, context and steps in configs/kth64_big.yml, the thinned timesteps in "
            "models/__init__.py of voletiv/mcvd-pytorch"
        ),
    ),
    Method(
        key="streaming-t2v",
        title="StreamingT2V",
        citation="Henschel et al. 2024",
        arxiv="2403.14773",
        builder=published.streaming_t2v,
        verdict="approximate",
        note=(
            "a chunk denoises 16 frames, of which the first 8 repeat the context and are dropped; its "
            "configuration shares noise between chunks, so new frames do not enter independent; "
            "another model makes the first 16 frames; the anchor is seen through image features, the "
            "context through a side network"
        ),
        checked=(
            "frames, context, anchor and steps in model/video_ldm.py and in two files under configs/, "
            "all in t2v_enhanced/ of Picsart-AI-Research/StreamingT2V; not its base model's noise "
            "schedule"
        ),
    ),
    Method(
        key="fifo-diffusion",
        title="FIFO-Diffusion",
        citation="Kim et al. 2024",
        arxiv="2405.11473",
        builder=published.fifo_diffusion,
        verdict="approximate",
        note=(
            "the queue is first filled with one 16-frame clip, its first frame repeated 48 times, "
            "each noised to its level, and the first 48 outputs are dropped; here w - Δ frames are "
            "denoised together; the base model scales its signal down to 0.7 at high noise, which is "
            "left out"
        ),
        checked=(
            "queue, levels, M = 1 and lookahead in scripts/evaluation/funcs.py, timesteps and "
            "schedule in lvdm/models/ and configs/, defaults in videocrafter_main.py of "
            "jjihwan/FIFO-Diffusion_public"
        ),
    ),
    Method(
        key="rolling-diffusion",
        title="Rolling Diffusion Models",
        citation="Ruhe et al. 2024",
        arxiv="2402.09470",
        builder=published.rolling_diffusion,
        verdict="approximate",
        note=f"{_INFINITE}; {_GIVEN}; window, steps, context and schedule are placeholders",
        checked="",
    ),
    Method(
        key="pa-vdm",
        title="Progressive Autoregressive Video Diffusion Models",
        citation="Xie et al. 2024",
        arxiv="2410.08151",
        builder=published.pa_vdm,
        verdict="approximate",
        note=f"{_INFINITE}; the first clean chunk is real there and the warm-up is conditioned on it",
        checked=(
            "chunks, stages, warm-up and the kept chunk in opensora/schedulers/rf/, sizes in "
            "pavdm/configs/inference/sample_base_chunk_keep0_variable.py of desaixie/pa_vdm"
        ),
    ),
    Method(
        key="diffusion-forcing",
        title="Diffusion Forcing",
        citation="Chen et al. 2024",
        arxiv="2407.01392",
        builder=published.diffusion_forcing,
        verdict="approximate",
        note=(
            f"{_GIVEN}; {_UNMASKED}. Context is shown scaled as if noised to a stabilisation level but "
            "without the noise, which loses nothing: its level is 0. The released default makes one "
            "frame at a time (frames = 1), where the pyramid is a column"
        ),
        checked=(
            "step matrix and rollout in df_base.py, levels and schedule in models/diffusion.py and "
            "models/utils.py, steps in df_video.yaml, 36 frames in video_dmlab.yaml of "
            "buoyancy99/diffusion-forcing, in versions of different dates"
        ),
    ),
    Method(
        key="ar-diffusion",
        title="AR-Diffusion",
        citation="Sun et al. 2025",
        arxiv="2503.07418",
        builder=published.ar_diffusion,
        verdict="approximate",
        note=f"{_UNMASKED}",
        checked=(
            "step matrix in src/ardiff/modules/fifoddim.py, timesteps and schedule in "
            "modules/utils.py, a gap of 5 over 16 frames in README.md of iva-mzsun/AR-Diffusion; 50 "
            "steps is the largest gap named in its sampler"
        ),
    ),
    Method(
        key="skyreels-v2",
        title="SkyReels-V2: Infinite-length Film Generative Model",
        citation="Chen et al. 2025",
        arxiv="2504.13074",
        builder=published.skyreels_v2,
        verdict="approximate",
        note=(
            f"{_INFINITE}; context noise is drawn afresh at every reverse step, here at every AR step; "
            "the first window has 25 latents there; context is decoded to pixels and encoded again"
        ),
        checked=(
            "step matrix, context noise and long mode in diffusion_forcing_pipeline.py, defaults in "
            "generate_video_df.py of SkyworkAI/SkyReels-V2, the gap of 5 in copies of its README; not "
            "its solver's own σ table"
        ),
    ),
    Method(
        key="causvid",
        title="From Slow Bidirectional to Fast Autoregressive Video Diffusion Models (CausVid)",
        citation="Yin et al. 2024",
        arxiv="2412.07772",
        builder=published.causvid,
        verdict="approximate",
        note=f"{_INFINITE}. Causality needs no mask: w = Δ, and a chunk is only ever seen by later ones",
        checked=(
            "rollout in causvid/models/wan/causal_inference_i2v.py of tianweiy/CausVid; timesteps "
            "1000, 757, 522, 0 in configs/wan_causal_dmd.yaml and the scheduler in flow_match.py of a "
            "fork, yitongdeng2/CausVid"
        ),
        step="renoise",
    ),
    Method(
        key="self-forcing",
        title="Self Forcing",
        citation="Huang et al. 2025",
        arxiv="2506.08009",
        builder=published.self_forcing,
        verdict="approximate",
        note=f"{_INFINITE}; with a rolling cache (memory = 18), {_CARRIED}",
        checked=(
            "rollout in pipeline/causal_inference.py and the shifted table in utils/wan_wrapper.py as "
            "stored under guandeh17/Self-Forcing, timesteps and shift in "
            "configs/self_forcing_dmd.yaml of a fork, junbao-zhou/Self-Forcing"
        ),
        step="renoise",
    ),
    Method(
        key="longlive",
        title="LongLive",
        citation="Yang et al. 2025",
        arxiv="2509.22622",
        builder=published.longlive,
        verdict="approximate",
        note=f"{_INFINITE}; {_CARRIED}; cached positions",
        checked=(
            "sink and local window in wan/modules/causal_model.py of NVlabs/LongLive (12 latents in "
            "all, 3 of them the sink and 3 current), sizes and steps in "
            "configs/longlive_inference.yaml of a fork, yondonfu/LongLive"
        ),
    ),
    Method(
        key="hiar",
        title="HiAR: Efficient Autoregressive Long Video Generation via Hierarchical Denoising",
        citation="Zou et al. 2026",
        arxiv="2603.08703",
        builder=published.hiar,
        verdict="approximate",
        note=(
            f"{_INFINITE}. That a step of all chunks comes before the next step of any changes the order, not the "
            "law. How many latents its cache holds over long videos was not found: here all"
        ),
        checked=(
            "the order of steps, the level of cached chunks (that which the step reaches, clean after the last) "
            "and the noising again in inference_hybrid of pipeline/causal_inference.py of Jacky-hate/HiAR; "
            "timesteps, shift and chunks of 3 in configs/hiar.yaml of a fork, AnqiNie/my_HiAR"
        ),
        step="renoise",
    ),
    Method(
        key="deep-forcing",
        title="Deep Forcing: Training-Free Long Video Generation",
        citation="Yi et al. 2025",
        arxiv="2512.05081",
        builder=published.deep_forcing,
        verdict="approximate",
        note=(
            f"{_INFINITE}; {_CARRIED}; cached positions; between sink and recent latents it keeps those parts of "
            "the history that attention finds most useful, which here are the last ones whole"
        ),
        checked=(
            "a sink of 10 in a window of 21 latents, timesteps and shift in "
            "configs/self_forcing_dmd/self_forcing_dmd_sink10.yaml, as stored under Nizben/Spectral_C; half the "
            "window as sink on the project page; not its compression's budget"
        ),
    ),
    Method(
        key="fademem",
        title="FadeMem: Distance-Aware Memory Consolidation",
        citation="Lu et al. 2026",
        arxiv="2606.10671",
        builder=published.fademem,
        verdict="outside",
        note="older entries of the cache are merged with their neighbours: a function of several frames",
        checked="the abstract alone",
    ),
    Method(
        key="history-guidance",
        title="History-Guided Video Diffusion (DFoT)",
        citation="Song et al. 2025",
        arxiv="2502.06764",
        builder=published.dfot,
        verdict="approximate",
        note=(
            "frames, context, steps and schedule are placeholders. Vanilla history guidance is a score, "
            "GuidedScore(ω) = s(W) + ω (s(W, R) - s(W)), and stabilised history a noised reference; fractional "
            "and temporal guidance compose scores of other histories, which no score here does"
        ),
        checked=(
            "how scores are composed in algorithms/dfot/history_guidance.py of "
            "kwsong0113/diffusion-forcing-transformer; none of the plan's numbers"
        ),
    ),
    Method(
        key="cosmos-predict2",
        title="Cosmos-Predict2 Video2World",
        citation="NVIDIA 2025",
        arxiv=None,
        builder=published.cosmos_predict2,
        verdict="approximate",
        note=(
            f"{_GIVEN}; given latents are clean, and only the level that the network is told is above 0 (σ = "
            "0.0001); its second-order solver and how it ends at σ = 0 were not read; one clip there, chunk after "
            "chunk here"
        ),
        checked=(
            "24 latents, 1 or 2 of them given, σ = 0.0001, 35 steps from σ = 80 to 0.002 at ρ = 7 in "
            "cosmos_predict2/configs/base/config_video2world.py of nvidia-cosmos/cosmos-predict2"
        ),
    ),
    Method(
        key="longcat-video",
        title="LongCat-Video",
        citation="Meituan 2025",
        arxiv=None,
        builder=published.longcat_video,
        verdict="approximate",
        note=(
            f"{_INFINITE}; the scheduler's shift lies with its weights and was not read (1 here), nor was the "
            "uniform tail of its timesteps for detail; context is decoded to pixels and encoded again, and cached "
            "clean, as of time 0"
        ),
        checked=(
            "segments of 93 frames given the last 13, 50 steps and the cache in run_demo_long_video.py of "
            "meituan-longcat/LongCat-Video; σ from 1 to 0.001 in copies of its pipeline_longcat_video.py"
        ),
    ),
    Method(
        key="rolling-sink",
        title="Rolling Sink",
        citation="Li et al. 2026",
        arxiv="2602.07775",
        builder=published.rolling_sink,
        verdict="approximate",
        note=(
            f"{_INFINITE}; 15 of the first 18 latents are shown at a time, in an order that runs to "
            "and fro, at the positions they stand in for; the first chunk's noise is used again for "
            "every chunk, so new frames do not enter independent"
        ),
        checked=(
            "the rolled cache in wan/modules/causal_model.py, the repeated noise in inference.py, "
            "steps in configs/self_forcing_dmd.yaml of haodong2000/RollingSink"
        ),
    ),
    Method(
        key="rolling-forcing",
        title="Rolling Forcing",
        citation="Liu et al. 2025",
        arxiv="2509.25161",
        builder=published.rolling_forcing,
        verdict="approximate",
        note=f"{_INFINITE}; {_CARRIED}; cached positions",
        checked=(
            "window in pipeline/rolling_forcing_inference.py, steps in "
            "configs/rolling_forcing_dmd.yaml and the cache of 21 latents (3 of them the sink, 15 in "
            "flight) in causal_model.py, in forks of TencentARC/RollingForcing"
        ),
        step="renoise",
    ),
    Method(
        key="magi-1",
        title="MAGI-1: Autoregressive Video Generation at Scale",
        citation="Sand AI 2025",
        arxiv="2505.13211",
        builder=published.magi,
        verdict="approximate",
        note=f"{_INFINITE}; {_UNMASKED}",
        checked=(
            "chunks, times and key ranges in inference/pipeline/video_generate.py of a fork, "
            "samiazirar/MAGI-1; sizes and 32 steps in example/4.5B/4.5B_config.json of "
            "SandAI-org/MAGI-1"
        ),
    ),
    Method(
        key="pyramidal-flow",
        title="Pyramidal Flow Matching",
        citation="Jin et al. 2024",
        arxiv="2410.05954",
        builder=published.pyramidal_flow,
        verdict="outside",
        note=(
            "a frame changes resolution inside an AR step and is noised again as it does, so its "
            "level rises; its history is shown at falling resolution, a function of the past that is "
            "no list of frames"
        ),
        checked=(
            "stages in pyramid_dit_for_video_gen_pipeline.py, start and end σ in "
            "scheduling_flow_matching.py of jy0205/Pyramid-Flow"
        ),
    ),
    Method(
        key="framepack-f1",
        title="Packing Input Frame Context in Next-Frame Prediction Models (FramePack-F1)",
        citation="Zhang et al. 2025",
        arxiv="2504.12626",
        builder=published.framepack_f1,
        verdict="approximate",
        note=(
            f"{_INFINITE}; of the last 19 latents the older 2 and 16 are shown compressed 2 and 4 "
            "times, here whole; the first latent is a real image there"
        ),
        checked=(
            "sections and history in demo_gradio_f1.py, times in "
            "diffusers_helper/pipelines/k_diffusion_hunyuan.py of lllyasviel/FramePack"
        ),
    ),
    Method(
        key="framepack",
        title="Packing Input Frame Context in Next-Frame Prediction Models (FramePack, anti-drifting)",
        citation="Zhang et al. 2025",
        arxiv="2504.12626",
        builder=published.framepack,
        verdict="outside",
        note="sections are made from the far end of the video towards its start",
        checked="the order of sections in demo_gradio.py of lllyasviel/FramePack",
    ),
    Method(
        key="gamengen",
        title="Diffusion Models Are Real-Time Game Engines (GameNGen)",
        citation="Valevski et al. 2024",
        arxiv="2408.14837",
        builder=published.gamengen,
        verdict="approximate",
        note=(
            f"{_GIVEN}; 0.7 is the largest context noise of its training, read as σ beside a unit "
            "signal: neither that formula, nor the level at inference, nor which 4 timesteps is "
            "stated"
        ),
        checked=(
            "sections 3 and 4 of the paper: 64 frames, 4 DDIM steps, noise up to 0.7, the schedule of "
            "latent diffusion"
        ),
    ),
    Method(
        key="diamond",
        title="Diffusion for World Modeling (DIAMOND)",
        citation="Alonso et al. 2024",
        arxiv="2405.12399",
        builder=published.diamond,
        verdict="approximate",
        note=(
            f"{_GIVEN}; its sampler starts at σ = 5 from N(0, 1), in the variance-preserving units of "
            "a plan from variance 1/26"
        ),
        checked=(
            "σ grid and start in src/models/diffusion/diffusion_sampler.py, 4 frames in "
            "config/agent/default.yaml, 3 steps in config/world_model_env/default.yaml of "
            "eloialonso/diamond, the last in the CS:GO version, which also noises the context (σ = "
            "0.005)"
        ),
    ),
    Method(
        key="oasis",
        title="Oasis",
        citation="Decart and Etched 2024",
        arxiv=None,
        builder=published.oasis,
        verdict="approximate",
        note=(
            f"{_GIVEN}; context noise is drawn afresh at every reverse step and falls with the frame's "
            "own level once that is lower; here it is drawn once an AR step, at its highest"
        ),
        checked=(
            "sampler in generate.py of etched-ai/open-oasis; 32 frames in dit.py and the sigmoid "
            "schedule in utils.py of forks, tsuberim/open-oasis and eitanturok/open-oasis"
        ),
    ),
)
