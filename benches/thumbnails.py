"""Mediary, libvips and Pillow as Synapse uses it: CPU, memory, bytes and likeness of one thumbnail.

Run by thumbnails.sh. Every program makes the same thumbnails of the same files in a process of its own, warm, with
the file in the page cache and one thread; the programs follow each other in turn, so that a busy machine slows all
of them. CPU time is what counts; medians over the rounds, ratios within a round first.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image, ImageMath

CRATE = Path(__file__).resolve().parent.parent
BENCH_DIR = CRATE / "target" / "bench"
PHOTO = CRATE / "target" / "photo" / "nuthatch.jpg"

MEDIARY, VIPS, PILLOW = "Mediary", "libvips", "Pillow (Synapse)"


@dataclass(frozen=True)
class Case:
    """One source and one thumbnail of it; the goals are ratios of Mediary's CPU to another's."""

    file: str
    size: tuple[int, int]
    method: str = "scale"
    #: What libvips is told to write: the kind that Mediary writes.
    suffix: str = ".jpg[Q=75,strip]"
    of_vips: float = 1.0
    of_pillow: float | None = None
    rounds: int = 20
    #: Whether bytes and likeness have goals, too; the encoders of PNG lose nothing.
    lossy: bool = True

    @property
    def name(self) -> str:
        return f"{self.file} → {self.size[0]}x{self.size[1]} {self.method}"


PHOTO_12MP = "photo-4000x3000.jpg"
PNG = ".png[strip]"
WEBP = ".webp[Q=75,strip]"
CASES = (
    Case(PHOTO_12MP, (320, 240), of_vips=0.8, of_pillow=0.25),
    Case(PHOTO_12MP, (96, 96), "crop", of_vips=0.8, of_pillow=0.25),
    Case(PHOTO_12MP, (800, 600), of_vips=0.8, of_pillow=0.25),
    Case("photo-4000x3000-422.jpg", (320, 240)),
    Case("photo-4000x3000-progressive.jpg", (320, 240), rounds=5),
    Case("photo-4000x3000-p3.jpg", (320, 240)),
    Case("photo-2000x1500.jpg", (640, 480)),
    Case("alpha-2000x2000.png", (320, 320), suffix=PNG, lossy=False),
    Case("alpha-2000x2000.png", (96, 96), "crop", suffix=PNG, lossy=False),
    Case("photo-2000x2000.png", (320, 320)),
    Case("screenshot-1920x1080.png", (800, 450)),
    Case("photo-1600x1200.webp", (320, 240)),
    Case("photo-4000x3000.webp", (320, 240), rounds=5),
    Case("photo-1600x1200-lossless.webp", (320, 240), rounds=5),
    Case("photo-1000x750.gif", (320, 240)),
)


def vips(*arguments: str) -> None:
    subprocess.run(["vips", *arguments], check=True, stdout=subprocess.DEVNULL)


BASE = BENCH_DIR / "base.v"


def make_photo() -> Path:
    """Makes the photograph of 12 megapixels, the same bytes each time; returns where it is."""
    if not BASE.exists():
        vips("resize", str(PHOTO), str(BENCH_DIR / "wide.v"), "0.8847")
        vips("extract_area", str(BENCH_DIR / "wide.v"), str(BASE), "600", "0", "4000", "3000")
        (BENCH_DIR / "wide.v").unlink()
    save(PHOTO_12MP, "[Q=94,strip,subsample_mode=on]")
    return BENCH_DIR / PHOTO_12MP


def save(name: str, options: str = "", scale: float = 1.0) -> None:
    if not (BENCH_DIR / name).exists():
        vips("resize", str(BASE), f"{BENCH_DIR / name}{options}", str(scale))


def make_sources() -> None:
    """Makes all sources from one photograph, the same bytes each time."""
    make_photo()
    save("photo-4000x3000-progressive.jpg", "[Q=94,strip,subsample_mode=on,interlace]")
    save("photo-2000x1500.jpg", "[Q=90,strip,subsample_mode=on]", 0.5)
    save("photo-4000x3000.webp", "[Q=90,strip]")
    save("photo-1600x1200.webp", "[Q=90,strip]", 0.4)
    save("photo-1600x1200-lossless.webp", "[lossless,strip]", 0.4)
    p3 = BENCH_DIR / "photo-4000x3000-p3.jpg"
    if not p3.exists():
        vips("icc_transform", str(BENCH_DIR / PHOTO_12MP), f"{p3}[Q=94,subsample_mode=on]", "p3",
             "--input-profile", "srgb")
    with Image.open(BENCH_DIR / PHOTO_12MP) as photo:
        photo.load()
    save_by_pillow("photo-4000x3000-422.jpg", lambda: photo, quality=94, subsampling="4:2:2")
    square = photo.crop((500, 0, 3500, 3000)).resize((2000, 2000), Image.LANCZOS)
    save_by_pillow("photo-2000x2000.png", lambda: square)
    save_by_pillow("alpha-2000x2000.png", lambda: with_alpha(square))
    save_by_pillow("photo-1000x750.gif", lambda: photo.resize((1000, 750), Image.LANCZOS))
    save_by_pillow("screenshot-1920x1080.png", screenshot)


def save_by_pillow(name: str, picture, **options) -> None:
    if not (BENCH_DIR / name).exists():
        picture().save(BENCH_DIR / name, **options)


def with_alpha(picture: Image.Image) -> Image.Image:
    """A disc of the picture, soft at its edge, on nothing."""
    disc = Image.radial_gradient("L").resize(picture.size).point(lambda far: min(255, max(0, 4 * (160 - far))))
    picture = picture.convert("RGBA")
    picture.putalpha(disc)
    return picture


def screenshot() -> Image.Image:
    """Flat areas and thin lines, as screens have them."""
    picture = Image.new("RGB", (1920, 1080), (247, 247, 250))
    pixels = picture.load()
    for y in range(1080):
        for x in range(1920):
            if x < 300:
                pixels[x, y] = (40, 44, 52)
            if y % 24 < 14 and (x * 7 + y // 24 * 13) % 11 < 4 and x % 640 < 520:
                pixels[x, y] = (30 + (x // 40 * 37) % 160, 60, 90) if x >= 300 else (200, 205, 215)
    return picture


# One subprocess for each measurement


def measure(program: str, case: Case, arguments: argparse.Namespace) -> dict:
    source, out = str(BENCH_DIR / case.file), str(out_file(program, case))
    width, height = map(str, case.size)
    rounds = str(1 if arguments.quick else case.rounds)
    if program == MEDIARY:
        method = case.method + ("+webp" if case.suffix == WEBP else "")
        command = [arguments.mediary, source, f"{width}x{height}", method, rounds, out]
    elif program == VIPS:
        command = [arguments.vips, source, width, height, case.method, case.suffix, rounds, out]
    else:
        command = [sys.executable, __file__, "--pillow", source, width, height, case.method, rounds, out]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def out_file(program: str, case: Case) -> Path:
    return BENCH_DIR / f"out-{program.split()[0].lower()}-{case.file}-{case.size[0]}"


def be_pillow(source: str, width: str, height: str, method: str, rounds: str, out: str) -> None:
    """What Synapse does for one thumbnail, in a loop."""
    from synapse.media.thumbnailer import Thumbnailer

    def once() -> bytes:
        with Thumbnailer(source) as thumbnailer:
            thumbnailer.transpose()
            output = "image/png" if thumbnailer.has_transparency else "image/jpeg"
            if method == "crop":
                made = thumbnailer.crop(int(width), int(height), output)
            else:
                made = thumbnailer.scale(*thumbnailer.aspect(int(width), int(height)), output)
            return made.getvalue()

    made = once()
    wall, cpu = time.monotonic(), time.process_time()
    for _ in range(int(rounds)):
        made = once()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    Path(out).write_bytes(made)
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    each = 1000 / int(rounds)
    print(json.dumps({"cpu_ms": cpu * each, "wall_ms": wall * each, "bytes": len(made), "peak_mib": peak}))


# Likeness


def reference(case: Case) -> Image.Image:
    """The full picture, cut and brought to size by Pillow's Lanczos at once; on white where it is transparent."""
    with Image.open(BENCH_DIR / case.file) as picture:
        picture = to_srgb(picture)
        box = None
        if case.method == "crop":
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            box = (left, top, left + side, top + side)
        premultiplied = picture.convert("RGBa")
        return on_white(premultiplied.resize(case.size, Image.LANCZOS, box).convert("RGBA"))


def to_srgb(picture: Image.Image) -> Image.Image:
    from PIL import ImageCms

    profile = picture.info.get("icc_profile")
    if profile is None:
        return picture.convert("RGBA")
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB")).convert("RGBA")


def on_white(picture: Image.Image) -> Image.Image:
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white.convert("RGB")


def likeness(case: Case, program: str) -> tuple[float, float]:
    """SSIM of luma, and the mean of that of red, green and blue."""
    with Image.open(out_file(program, case)) as made:
        made = on_white(to_srgb(made))
    wanted = reference(case)
    if made.size != wanted.size:
        raise SystemExit(f"{case.name}: {program} made {made.size}")
    luma = ssim(made.convert("L"), wanted.convert("L"))
    return luma, sum(map(ssim, made.split(), wanted.split())) / 3


def ssim(one: Image.Image, other: Image.Image) -> float:
    """Structural similarity (Wang et al., 2004) over windows of 8x8 pixels, one every 4."""
    scores = []
    for left in (0, 4):
        for top in (0, 4):
            box = (left, top, *one.size)
            scores += windows(one.crop(box).convert("F"), other.crop(box).convert("F"))
    return sum(scores) / len(scores)


def windows(one: Image.Image, other: Image.Image) -> list[float]:
    width, height = (side // 8 * 8 for side in one.size)
    one, other = one.crop((0, 0, width, height)), other.crop((0, 0, width, height))

    def mean(expression) -> Image.Image:
        return ImageMath.lambda_eval(expression, a=one, b=other).reduce(8)

    def formula(it):
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        a, b = it["a"], it["b"]
        variances = it["aa"] - a * a + it["bb"] - b * b
        covariance = it["ab"] - a * b
        return (a * b * 2 + c1) * (covariance * 2 + c2) / ((a * a + b * b + c1) * (variances + c2))

    scores = ImageMath.lambda_eval(
        formula, a=one.reduce(8), b=other.reduce(8), aa=mean(lambda it: it["a"] * it["a"]),
        bb=mean(lambda it: it["b"] * it["b"]), ab=mean(lambda it: it["a"] * it["b"]),
    )
    return list(scores.get_flattened_data() if hasattr(scores, "get_flattened_data") else scores.getdata())


# The report


def compare(case: Case, arguments: argparse.Namespace) -> list[str]:
    """Measures one case; prints its rows and returns the goals that it has missed."""
    programs = [MEDIARY, VIPS, PILLOW]
    figures: dict[str, list[dict]] = {program: [] for program in programs}
    for turn in range(arguments.rounds):
        for program in programs[turn % 3:] + programs[:turn % 3]:
            figures[program].append(measure(program, case, arguments))
    scores = {program: likeness(case, program) for program in programs}
    for program in programs:
        rows = figures[program]
        ratios = [row["cpu_ms"] / own["cpu_ms"] for row, own in zip(rows, figures[MEDIARY])]
        luma, colour = scores[program]
        print(
            f"| {case.name if program == MEDIARY else ''} | {program} "
            f"| {median(row['cpu_ms'] for row in rows):.2f} | {median(row['wall_ms'] for row in rows):.2f} "
            f"| {1 / median(ratios):.2f} | {median(row['peak_mib'] for row in rows):.0f} "
            f"| {rows[0]['bytes']} | {luma:.4f} | {colour:.4f} |", flush=True)
    return missed(case, figures, scores)


def missed(case: Case, figures: dict[str, list[dict]], scores: dict[str, tuple[float, float]]) -> list[str]:
    def ratio(other: str) -> float:
        pairs = zip(figures[MEDIARY], figures[other])
        return median(own["cpu_ms"] / row["cpu_ms"] for own, row in pairs)

    goals = [(f"CPU of {VIPS}'s", ratio(VIPS), case.of_vips)]
    if case.of_pillow is not None:
        goals.append((f"CPU of {PILLOW}'s", ratio(PILLOW), case.of_pillow))
        goals.append(("peak memory in MiB", max(row["peak_mib"] for row in figures[MEDIARY]), 24.0))
    if case.lossy:
        own, other = figures[MEDIARY][0]["bytes"], figures[VIPS][0]["bytes"]
        goals.append((f"bytes of {VIPS}'s", own / other, 1.0))
        goals.append((f"SSIM of {VIPS}'s over ours", scores[VIPS][0] / scores[MEDIARY][0], 1.0))
    return [f"{case.name}: {what} {is_:.3f}, goal {goal}" for what, is_, goal in goals if is_ > goal + 5e-5]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mediary", required=True, help="the program of thumbnail.rs")
    parser.add_argument("--vips", required=True, help="the program of vips.c")
    parser.add_argument("--rounds", type=int, default=5, help="how often the programs take turns")
    parser.add_argument("--only", default="", help="only cases whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="one thumbnail a turn: roughly")
    arguments = parser.parse_args()
    BENCH_DIR.mkdir(parents=True, exist_ok=True)
    make_sources()
    print("| thumbnail | by | CPU ms | wall ms | our CPU / theirs | peak MiB | bytes | SSIM | SSIM RGB |")
    print("|---|---|---|---|---|---|---|---|---|")
    cases = [case for case in CASES if arguments.only in case.name]
    misses = [miss for case in cases for miss in compare(case, arguments)]
    print("\n" + ("\n".join(["Missed:", *misses]) if misses else "All goals met."))
    return 1 if misses else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    if sys.argv[1:2] == ["--pillow"]:
        be_pillow(*sys.argv[2:])
    else:
        sys.exit(main())
