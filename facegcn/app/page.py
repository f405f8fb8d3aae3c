"""The page, in gradio's parts."""

from __future__ import annotations

from facegcn.app.workshop import TEXTURES, Workshop, worlds
from facegcn.errors import UserError, log
from facegcn.photos.reading import IMAGE_ENDINGS

UPLOAD_LIMIT = 20 << 20  # bytes
WAITING = 20  # photos that may wait for their turn
_LIGHTS = {"without light": "albedo", "in the photo's light": "lit"}
_KEPT = 3600  # seconds that results are kept while the page runs
_TITLE = "One photo in, a textured 3D face out"
CSS = """.gradio-container {max-width: 1280px !important; margin: auto}
#pictures .grid-wrap {max-height: none !important}
#pictures .grid-container {grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)) !important}
@media (min-width: 900px) {#pictures .grid-container {grid-template-columns: repeat(4, 1fr) !important}}"""
#: Some browsers offer WebGPU and then cannot make it; the 3D view, which would prefer it, stays empty. WebGL serves.
HEAD = "<script>Object.defineProperty(navigator, 'gpu', {get: () => undefined})</script>"


def build(gradio, workshop: Workshop):
    """The page's ``gradio.Blocks``, its queue set up: one photo at a time.

    Args:
        gradio: the package.
        workshop: does the work.
    """
    with gradio.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(_KEPT, _KEPT)) as page:
        models = gradio.State({})
        gradio.Markdown(f"# {_TITLE}\nAll is computed on the machine that serves this page, and nothing is kept.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=300):
                asked = _questions(gradio)
                start = gradio.Button("Reconstruct", variant="primary", elem_id="start")
                words = gradio.Markdown("Choose a photo, then press Reconstruct.", elem_id="words", min_height=90)
                archive = gradio.DownloadButton("Download all files (zip)", interactive=False, elem_id="archive")
            with gradio.Column(scale=2, min_width=320):
                model = gradio.Model3D(label="Drag to turn, scroll to come nearer", height=460, elem_id="model",
                                       clear_color=(0.93, 0.93, 0.93, 1.0))
                light = gradio.Radio(list(_LIGHTS), value=next(iter(_LIGHTS)), label="Colours of the 3D face",
                                     elem_id="light")
        pictures = gradio.Gallery(label="Pictures and textures", columns=4, height="auto", object_fit="contain",
                                  elem_id="pictures")

        def reconstruct(photo, world, texture, views, rig, light, progress=gradio.Progress()):  # noqa: B008 - its way
            found = _reconstructed(workshop, photo, world, texture, views, rig, progress)
            if isinstance(found, str):
                return found, gradio.DownloadButton(value=None, interactive=False), None, [], {}
            return (found.words, gradio.DownloadButton(value=found.archive, interactive=True),
                    found.models[_LIGHTS[light]], found.pictures, found.models)

        begun = start.click(lambda: "", None, words, queue=False, show_progress="hidden", api_visibility="private")
        begun.then(reconstruct, [*asked, light], [words, archive, model, pictures, models], show_progress_on=words,
                   api_visibility="private")
        light.change(lambda light, models: models.get(_LIGHTS[light]), [light, models], model,
                     api_visibility="private")
    return page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)


def _questions(gradio):
    """What the user is asked, in the order of ``Workshop.__call__``."""
    here = worlds()
    return [
        gradio.File(label=f"Photo, at most {UPLOAD_LIMIT >> 20} MB", file_types=list(IMAGE_ENDINGS), elem_id="photo",
                    height=150),
        gradio.Dropdown(here, value=here[0], label="Face model", elem_id="world"),
        gradio.Dropdown([(f"{size} x {size}", size) for size in TEXTURES], value=2048, label="Texture",
                        elem_id="texture"),
        gradio.Checkbox(False, label="Turned views and other lights", elem_id="views"),
        gradio.Checkbox(True, label="Rig with named expressions, where the model has them", elem_id="rig"),
    ]


def _reconstructed(workshop, photo, world, texture, views, rig, progress):
    """The ``workshop.Result``, or the reason why there is none."""
    if photo is None:
        return "**No photo yet.** Drop one into the field above."
    try:
        return workshop(photo, world, texture, views, rig, lambda share, text: progress(share, desc=text))
    except UserError as error:
        return f"**This photo cannot be used:** {error}"
    except Exception:
        log.exception("a photo could not be reconstructed:")
        return "**That went wrong, and not by your mistake.** The program's log has the details."
