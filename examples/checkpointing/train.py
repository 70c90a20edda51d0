"""A training loop that loses nothing when its GPU is taken back.

It saves when notice is given, once more when it is told to stop, and now and then in between; started again, it goes on from
the newest checkpoint. With PyTorch it trains a small network on the GPU it was given; without, a straight line in plain
Python, so that the loop can be tried anywhere.

    CHECKPOINT_DIR   where checkpoints lie; a cache of the workload, so that they outlive its container (default /checkpoints)
    STEPS            how many steps make it done (default 10000)
    SAVE_EVERY       steps between two checkpoints while nobody wants the GPU back (default 1000)
    STEP_SECONDS     pause in each step, to watch it at work (default 0)
"""

import json
import os
import pickle
import random
import signal
import sys
import time

CHECKPOINT = os.path.join(os.environ.get("CHECKPOINT_DIR", "/checkpoints"), "checkpoint")
NOTICE_FILE = os.environ.get("GPUNODE_PREEMPTION_FILE", "/run/gpunode/preemption.json")
STEPS = int(os.environ.get("STEPS", "10000"))
SAVE_EVERY = int(os.environ.get("SAVE_EVERY", "1000"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0"))

try:
    import torch
except ImportError:
    torch = None


class Line:
    """y = a x + b by gradient descent, where there is no PyTorch."""

    def __init__(self):
        self.a, self.b = 0.0, 0.0

    def step(self):
        x = random.uniform(-1, 1)
        error = self.a * x + self.b - (3 * x + 1)
        self.a -= 0.05 * error * x
        self.b -= 0.05 * error
        return error * error

    def state(self):
        return {"a": self.a, "b": self.b, "random": random.getstate()}

    def load(self, state):
        self.a, self.b = state["a"], state["b"]
        random.setstate(state["random"])


class Network:
    def __init__(self):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = torch.nn.Sequential(torch.nn.Linear(32, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1)).to(self.device)
        # The optimizer's state belongs into a checkpoint as much as the weights do.
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def step(self):
        x = torch.randn(256, 32, device=self.device)
        loss = torch.nn.functional.mse_loss(self.model(x), x.sum(dim=1, keepdim=True))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def save(step, model):
    """Under another name first, and on the disk before it gets its own: a kill in the middle leaves the one before."""
    part = CHECKPOINT + ".part"
    with open(part, "wb") as file:
        checkpoint = {"step": step, "model": model.state()}
        if torch is None:
            pickle.dump(checkpoint, file)
        else:
            torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, CHECKPOINT)
    folder = os.open(os.path.dirname(CHECKPOINT), os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    print(f"saved step {step}", flush=True)


def resume(model):
    if not os.path.exists(CHECKPOINT):
        return 0
    with open(CHECKPOINT, "rb") as file:
        checkpoint = pickle.load(file) if torch is None else torch.load(file, map_location=model.device)
    model.load(checkpoint["model"])
    print(f"going on from step {checkpoint['step']}", flush=True)
    return checkpoint["step"]


def read_notice():
    """The newest notice, or None. The file may not be there, also for an instant while it is replaced."""
    try:
        with open(NOTICE_FILE) as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


class Notices:
    """Tells each notice once.

    Steps are short here, so a look at the file in each is enough. A loop that waits long (for data, for other ranks) does it
    when SIGUSR1 comes. A workload that asks for that signal must handle it: it ends a process that does not.
    """

    def __init__(self):
        self.seen = None
        self.stop = False
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGTERM, self.on_stop)

    def on_stop(self, *_):
        # Only noted: in the middle of a step the model is in no state to be saved.
        self.stop = True

    def new(self):
        notice = read_notice()
        if notice is None or notice == self.seen:
            return None
        self.seen = notice
        return notice


def main():
    model = Line() if torch is None else Network()
    notices = Notices()
    step = resume(model)
    while step < STEPS:
        loss = model.step()
        step += 1
        time.sleep(STEP_SECONDS)
        notice = notices.new()
        if notices.stop:
            save(step, model)
            # Not 0: that would say that the work is done.
            sys.exit(128 + signal.SIGTERM)
        if notice is not None and notice["phase"] == "notice":
            print(f"notice: {notice['cause']}, until {notice.get('deadline', 'unknown')}", flush=True)
            save(step, model)
        elif notice is not None:
            print("the notice was withdrawn", flush=True)
        elif step % SAVE_EVERY == 0:
            print(f"step {step}, loss {loss:.4f}", flush=True)
            save(step, model)
    save(step, model)
    print("done", flush=True)


if __name__ == "__main__":
    main()
