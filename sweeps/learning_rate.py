"""Which learning rate and schedule, and which window to learn from which start, give the best images.

    python sweeps/learning_rate.py --data.dir data/mine --sweep.name rates --sweep.trials 32

Without options it takes the sample data, and some minutes on two processors. All trials have the same loss (--loss.l1,
--loss.ms_ssim, ..), but they are ranked by PSNR and SSIM on the validation part (--sweep.metric). The same command with
the same --sweep.name goes on with a sweep that was interrupted.
"""

from __future__ import annotations

from fbp_ray.sweep import Choice, LogRange, Space, sweep_program

SPACE: Space = {
    "optim.lr": LogRange(1e-3, 1e-1),
    "window.kind": Choice("frequency", "angle_frequency"),
    "window.init": Choice("ones", "hann", "cosine", "shepp-logan"),
    "optim.plateau_factor": Choice(0.3, 0.5, 0.8),
    "optim.plateau_patience": Choice(0, 1, 3),
}

if __name__ == "__main__":
    sweep_program(SPACE, "sweeps/learning_rate.py")
