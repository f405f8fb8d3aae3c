"""Shared fixtures: development data, numbers of the released code, a quiet TensorFlow."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
RENDER_STEPS = 8191  # of the travelling case's renders: 0 to 1 in 16-bit integers
sys.path.insert(0, str(ROOT))

from facegcn.backends.start import tensorflow  # noqa: E402

tensorflow()  # before any test module imports it: without its start-up notes

# A shared machine stalls now and then, so no example has a deadline; where CI is set, every run tries the same ones.
settings.register_profile("facegcn", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "facegcn")


#: What ``make test-fast`` leaves out, by file: the functions that take more than a second or two, and the fixtures that
#: do (every test that uses one is left out, too); () is the whole file. Measured with ``pytest --durations=0``.
SLOW = {
    "test_api.py": ("reconstruction",),
    "test_app.py": ("small_world", "served"),
    "test_assets_check.py": ("complete",),
    "test_benchmark.py": ("test_a_training_has_its_first_step_and_the_others",
                          "test_both_training_steps_learn_the_same",
                          "test_naive_decimation_keeps_as_many_and_mostly_the_same"),
    "test_benchmark_quality.py": ("test_the_demo_world_is_measured_untrained",),
    "test_bfm.py": ("source", "converted", "test_the_published_index_files_convert_too",
                    "test_a_model_beyond_single_precision_is_refused"),
    "test_blender.py": (),
    "test_demo_face.py": (),
    "test_devices.py": ("test_a_step_on_two_devices_is_one_step_on_the_whole_batch",),
    "test_detection.py": (),
    "test_export_gltf.py": ("test_a_face_of_27_thousand_vertices_is_written_at_once",),
    "test_blendshapes.py": ("acting", "real", "test_the_real_checkout_has_the_shapes_of_its_files"),
    "test_face_parts.py": ("models", "test_extract_and_checkout_without_parts"),
    "test_face_recognition.py": ("converted", "world", "test_features_match_the_numpy_oracle",
                                 "test_every_published_weight_has_its_place",
                                 "test_networks_see_grey_or_signed_colour"),
    "test_finite.py": ("eagerly",),
    "test_fitting.py": ("test_regressor_weights_round_trip_and_misfits",
                        "test_without_dense_landmarks_or_an_embedding_the_68_points_decide"),
    "test_frozen.py": ("world",),
    "test_graph.py": ("test_gradients_equal_finite_differences", "test_a_training_step_lowers_the_loss"),
    "test_ict.py": ("converted", "test_real_face_with_measured_skin", "test_broken_index_file"),
    "test_kill_and_restore.py": (),
    "test_landmark_embedding.py": ("test_the_demo_face_from_its_portraits",),
    "test_losses.py": ("test_critic_can_be_trained_inside_tf_function",),
    "test_mesh_sampling.py": ("test_template_of_bfm_size_takes_seconds",),
    "test_mutations.py": ("test_slow_tests_that_fail_anyway_and_processes_that_end_catch_nothing",),
    "test_networks.py": ("test_networks_equal_the_specification",
                         "test_residual_head_starts_at_the_coarse_albedo_and_learns", "test_weights_survive_a_file",
                         "test_critic_layers_and_carry_over", "test_critic_norms_and_sizes"),
    "test_no_components.py": (),
    "test_overfit.py": (),
    "test_person.py": ("world",),
    "test_person_fitting.py": ("test_a_person_is_nearer_to_the_truth_than_the_photos",
                               "test_another_person_is_named_and_changes_nothing",
                               "test_one_photo_gives_its_own_fit_and_equal_photos_count_once"),
    "test_pipeline.py": (),
    "test_rasterizer.py": ("test_any_batch_in_a_compiled_function", "test_gradients_match_finite_differences"),
    "test_reconstruction.py": ("test_metrics_tell_how_well_the_fit_explains_each_photo",
                               "test_photos_are_read_batch_by_batch_and_let_go",
                               "test_the_detail_step_brings_the_fine_face_nearer_to_the_photo",
                               "test_unusual_photos_do_not_end_the_batch"),
    "test_reference_networks.py": ("test_training_code_as_a_whole", "test_the_oracle_of_the_other_parity_tests"),
    "test_released_parity.py": (),
    "test_report_in_browser.py": (),
    "test_tf1_checkpoint.py": (),
    "test_trainers.py": (),
    "test_video.py": ("test_a_film_becomes_an_animation_weights_and_an_overlay",
                      "test_a_film_of_one_frame_is_a_photo_that_moves_little",
                      "test_a_film_without_a_face_leaves_nothing",
                      "test_a_model_without_named_expressions_has_no_animation"),
    "test_torch_weights.py": ("test_conversion_keeps_every_array_and_leaves_out_the_rest",),
}


#: Begins first, so that nobody waits for it at the end.
LONGEST = "test_kill_and_restore.py"


def pytest_collection_modifyitems(items):
    """Marks what ``SLOW`` names. The longest test comes first, then files with slow ones: so workers end together."""
    items.sort(key=lambda item: (item.path.name != LONGEST, item.path.name not in SLOW))
    for item in items:
        names = SLOW.get(item.path.name)
        if names is not None and (not names or {item.originalname, *item.fixturenames} & set(names)):
            item.add_marker("slow")


@pytest.fixture(scope="session", autouse=True)
def _disk_is_not_waited_for():
    """Thousands of small files are written here, and none must outlive a crash of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _few_portraits_measure_a_regressor():
    """Test mode measures each new regressor once, on up to 2,500 made portraits: half a minute, and regressors that
    tests make anew are new each time. A covariance of a small model needs no more than these. The priors of a fit need
    1,200 made people, some seconds."""
    from facegcn.assets import priors, regressor_errors
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regressor_errors, "COUNT", 64)
        patch.setattr(priors, "COUNT", 64)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data beside the repository; tests skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the development data folder '../shared' is not here")
    return folder


@pytest.fixture(scope="session", params=["travelling", "whole"])
def released_case(request) -> dict[str, np.ndarray]:
    """Inputs and results of one training step of the released code, see tests/data/README.md.

    The travelling case is in the repository; the whole one is in '../shared' and skipped where that is absent.
    """
    if request.param == "travelling":
        path = ROOT / "tests" / "data" / "released_case.npz"
    else:
        path = request.getfixturevalue("shared") / "reference" / "released_code_resnet.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not here")
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    return {name: np.float32(array / RENDER_STEPS) if array.dtype == np.int16 else array
            for name, array in arrays.items()}


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded random generator."""
    return np.random.default_rng(0)
