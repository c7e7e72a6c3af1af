"""Which weights of the loss terms, and which learning rate, give the best images, and what PSNR costs in SSIM.

    python sweeps/loss_weights.py --data.dir data/mine --sweep.name mine --sweep.trials 32

Without options it takes the sample data, and some minutes on two processors. Trials are ranked by PSNR and SSIM on the
validation part (--sweep.metric), not by their losses, which do not compare. The same command with the same --sweep.name
goes on with a sweep that was interrupted.

Adam divides every gradient by its size, so only the ratio of the weights matters: that of the SSIM stays as it is
(--loss.local_ssim), and a ratio of 100 makes a term nearly the only one.
"""

from __future__ import annotations

from fbp_ray.sweep import LogRange, Space, sweep_program

SPACE: Space = {
    "loss.log_mse": LogRange(0.01, 100),
    "optim.lr": LogRange(1e-3, 1e-1),
}

if __name__ == "__main__":
    sweep_program(SPACE, "sweeps/loss_weights.py")
