"""Each row of each table of docs/security.md is shown by tests, which are named here; its limits are those of src."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from gpt4image.base import files
from gpt4image.data import coco, decode, file_source, video, voc, yolo
from gpt4image.describing.describers import batch
from gpt4image.describing.describers.openai import describer
from gpt4image.describing.describers.openai import server as reply
from gpt4image.reviewing import server

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text(encoding="utf-8")
UNTRUSTED = "describing/describers/openai/test_server.py"
BATCH = "describing/describers/test_batch.py"
LOADING = "deploying/test_loading.py"
FILES = "base/test_files.py"

SHOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "Models": {
        "run folder": (
            f"{LOADING}::test_a_run_folder_names_models_of_timm_and_plain_arguments_alone",
            f"{LOADING}::test_a_hostile_header_of_weights_is_named",
            "test_integrity.py::test_no_command_makes_another_number_of_a_damaged_file",
            "artifacts/test_weights.py::test_a_pickle_is_never_opened",
        ),
        "model folder of transformers": (
            "models/test_of_transformers.py::test_what_cannot_be_used_is_refused",
            "models/test_of_transformers.py::test_weights_that_lack_more_than_the_classes_are_refused",
        ),
        "timm folder": (
            f"{LOADING}::test_timm_folders_that_cannot_be_used_say_why",
            f"{LOADING}::test_other_places_of_weights_in_a_timm_folder_are_not_looked_at",
            f"{LOADING}::test_pickled_weights_in_a_timm_folder_are_not_looked_at",
        ),
        "ONNX file": (
            f"{LOADING}::test_an_onnx_file_reads_no_other_file",
            "deploying/test_preprocessing.py::test_settings_of_a_file_that_are_none_are_refused",
        ),
        ".pt2 file": (f"{LOADING}::test_a_torch_export_archive_is_never_loaded_because_it_can_write_files",),
        "text encoders": (
            "encoding/text_encoders/test_sentence_transformers.py::test_code_in_the_folder_of_an_encoder_is_refused_and_not_run",
            "encoding/text_encoders/test_sentence_transformers.py::test_pickled_and_damaged_weights_are_refused",
            "encoding/text_encoders/test_open_clip.py::test_nothing_is_ever_unpickled",
            "encoding/text_encoders/test_open_clip.py::test_a_tokenizer_of_transformers_is_told_to_run_no_code",
        ),
        "local describers": (
            "describing/describers/test_transformers_model.py::test_files_that_cannot_be_used_are_refused",
            "models/test_hugging_face.py::test_code_that_a_model_names_is_refused",
        ),
    },
    "Servers": {
        "answer": (
            f"{UNTRUSTED}::test_an_answer_that_is_too_large_is_a_failure_with_that_reason",
            f"{UNTRUSTED}::test_an_endless_answer_ends_soon_and_its_connection_is_closed",
            f"{UNTRUSTED}::test_a_body_that_is_compressed_more_than_once_is_not_unpacked",
            f"{BATCH}::test_the_body_of_a_batch_is_bounded",
            f"{BATCH}::test_a_line_that_is_too_long_is_a_failure_and_the_rest_is_kept",
        ),
        "body of an error": (f"{UNTRUSTED}::test_an_error_that_is_too_large_keeps_its_status_and_is_not_shown",),
        "file of a batch": (f"{BATCH}::test_a_file_without_end_is_read_up_to_a_limit",),
        "text that is kept": (f"{UNTRUSTED}::test_what_is_kept_in_the_store_is_bounded",),
        "finish reason": (f"{UNTRUSTED}::test_what_is_kept_in_the_store_is_bounded",),
        "error text": (f"{UNTRUSTED}::test_no_part_of_the_key_is_left_where_a_text_is_cut",),
        "id of a file or batch": (f"{BATCH}::test_a_batch_of_another_shape_is_looked_at_again",),
        "tries of a paid call whose answer cannot be read": (
            f"{UNTRUSTED}::test_calls_that_were_paid_for_and_cannot_be_read_are_three_for_an_image",
        ),
    },
    "Secrets": {
        "key in `OPENAI_API_KEY`": (
            "describing/describers/openai/test_server_faults.py::test_what_every_call_would_meet_stops_the_run_and_keeps_what_came",
            f"{UNTRUSTED}::test_an_answer_that_repeats_the_key_is_kept_without_it",
            "test_secrets.py::test_a_batch_keeps_no_secret",
        ),
        "login or key in `--base-url`": (
            "test_secrets.py::test_distill_and_all_that_reads_its_folder_keep_no_login_and_no_key",
            "describing/describers/openai/test_describer.py::test_no_secret_of_the_address_comes_back_in_what_is_kept",
        ),
        "token of the hub": ("test_secrets.py::test_the_hub_s_token_stays_out_of_errors_and_folders",),
        "other variables": (
            "test_secrets.py::test_a_description_that_ends_badly_shows_no_secret",
            "base/test_secrets.py::test_logins_parameters_and_values_of_secret_variables_are_hidden",
        ),
    },
    "Files": {
        "JSON": (
            f"{FILES}::test_a_damaged_file_or_json_that_no_record_holds_is_named",
            "base/test_checksums.py::test_a_record_that_was_changed_does_not_match_its_checksum_and_one_without_is_read",
            "test_recipes.py::test_a_recipe_with_numbers_and_depth_that_no_option_has_is_refused",
        ),
        "arrays": (f"{FILES}::test_arrays_that_are_cut_longer_or_of_another_type_are_refused",),
        "Parquet": (
            f"{FILES}::test_parquet_that_is_no_parquet_or_lacks_a_column_is_refused",
            "test_damaged_files.py::test_a_row_of_parquet_that_is_not_text_costs_itself_alone",
        ),
        "safetensors": (f"{LOADING}::test_a_hostile_header_of_weights_is_named",),
        "description store": (
            "artifacts/test_store_checksums.py::test_a_value_that_changed_is_named_by_its_row",
            "artifacts/test_store.py::test_a_store_that_is_gone_does_not_take_its_log_with_it",
        ),
        "exported models": ("test_integrity.py::test_no_command_makes_another_number_of_a_damaged_file",),
        "tasks of Label Studio": (
            "reviewing/test_label_studio.py::test_what_is_no_list_of_tasks_is_refused_by_name",
            "reviewing/test_label_studio.py::test_bad_tasks_are_skipped_with_a_reason",
        ),
        "imports": (
            "test_fuzz.py::test_damaged_inputs_are_read_or_refused_by_name",
            "test_damaged_files.py::test_a_bad_line_costs_itself_alone",
            "describing/describers/test_replay.py::test_bad_lines_are_named_and_cost_no_other",
            "data/test_manifest.py::test_rows_that_cannot_be_used_are_named",
            "artifacts/test_answers.py::test_what_is_no_answer_is_refused",
        ),
        "shards (tar)": ("data/test_hf.py::test_tar_shards_are_read_by_their_library_and_pickled_members_are_not",),
        "Arrow tables of datasets": (
            "test_damaged_files.py::test_damaged_saved_datasets_are_named_or_read",
            "data/test_hf.py::test_paths_in_a_table_cannot_lead_out",
        ),
        "COCO files": (
            "data/test_coco.py::test_no_file_or_another_one_is_an_error",
            "data/test_coco.py::test_what_cannot_be_used_is_named_and_costs_nothing_else",
            "data/test_coco.py::test_bombs_are_refused_at_once",
        ),
        "YOLO folders": (
            "data/test_yolo.py::test_a_wrong_data_yaml_is_an_error",
            "data/test_yolo.py::test_bad_lines_are_named_and_cost_nothing_else",
        ),
        "Pascal VOC folders": (
            "data/test_voc.py::test_xml_that_attacks_is_refused_at_once",
            "data/test_voc.py::test_wrong_objects_sizes_and_files_are_named_and_cost_nothing_else",
        ),
        "masks": (
            "data/test_masks.py::test_masks_that_cannot_be_used_are_named_and_cost_nothing_else",
            "data/test_decode.py::test_a_mask_without_numbers_is_named",
        ),
        "files of boxes": (
            "test_integrity.py::test_doctor_finds_any_damage",
            "artifacts/test_box_table.py::test_another_file_or_none_is_an_error",
        ),
        "images": (
            "data/test_decode.py::test_a_header_that_claims_memory_is_refused_before_anything_is_decoded",
            "data/test_decode.py::test_what_is_no_image_is_refused",
            "data/test_decode.py::test_a_decompression_bomb_is_refused_by_its_header",
            "data/test_file_source.py::test_a_file_is_read_up_to_the_limit",
            "data/test_file_source.py::test_a_pipe_is_not_waited_for",
        ),
        "videos": (
            "data/test_video.py::test_what_is_no_whole_video_is_named",
            "data/test_video.py::test_no_file_and_no_address_is_opened_besides_the_bytes",
            "data/test_video.py::test_frames_pixels_and_seconds_are_bounded",
            "data/test_video.py::test_other_codecs_are_not_run",
        ),
        "files of a later version": ("test_written.py::test_a_later_format_is_refused_by_name_with_what_to_do",),
    },
    "The page of `review`": {
        "the page of `gpt4image review`": (
            "reviewing/test_server.py::test_the_token_becomes_a_cookie_that_scripts_cannot_read",
            "reviewing/test_server.py::test_another_token_is_refused_everywhere",
            "reviewing/test_server.py::test_a_name_that_leads_here_is_refused",
            "reviewing/test_server.py::test_requests_of_other_pages_are_refused",
            "reviewing/test_server.py::test_no_file_can_be_reached",
            "reviewing/test_server.py::test_requests_are_bounded",
            "reviewing/test_review.py::test_a_real_server_keeps_out_sockets_other_users_and_its_token_in",
        ),
    },
}
"""Section, then how the first cell of a row begins."""


def rows() -> dict[str, list[str]]:
    """Return the first cells of the tables of the page, by section."""
    found: dict[str, list[str]] = {}
    for title, text in re.findall(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", PAGE):
        cells = re.findall(r"(?m)^\| (.+?) \|", text)
        if cells:
            found[title] = [cell for cell in cells if cell not in ("read", "limit", "asked by", "secret")]
    return found


@functools.cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_is_shown_by_tests_that_are_there_and_every_entry_here_has_a_row() -> None:
    on_page = rows()
    assert on_page.keys() == SHOWN.keys()
    for section, cells in on_page.items():
        beginnings = {
            cell: [key for key in SHOWN[section] if cell.replace("`", "").startswith(key.replace("`", ""))]
            for cell in cells
        }
        assert {cell: found for cell, found in beginnings.items() if len(found) != 1} == {}, "rows without tests"
        assert {key for found in beginnings.values() for key in found} == SHOWN[section].keys(), "entries without a row"


@pytest.mark.parametrize("test", sorted({test for rows in SHOWN.values() for tests in rows.values() for test in tests}))
def test_a_named_test_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in names_in(file), f"{test} is gone: name the test that shows its row now"


def test_the_limits_of_the_page_are_those_that_are_used() -> None:
    limits = dict(re.findall(r"(?m)^\| ([\w ,']+) \| ([\d,]+(?: [KMG]B)?)", PAGE))
    used = {
        "answer, body of the Batch API, line of a batch file, after decompression": f"{reply.MAX_BODY >> 20} MB",
        "body of an error": f"{reply.MAX_ERROR >> 20} MB",
        "file of a batch": f"{batch.MAX_FILE >> 30} GB",
        "text that is kept": f"{reply.MAX_TEXT:,}",
        "finish reason": f"{reply.MAX_NAME}",
        "error text": f"{reply.MAX_MESSAGE}",
        "id of a file or batch": f"{batch._MAX_ID}",
        "tries of a paid call whose answer cannot be read": f"{describer._MOST_WASTED}",
    }
    assert limits == used
    for text in (
        f"more than {decode.MAX_PIXELS // 10**6} megapixels or {file_source.MAX_FILE_BYTES >> 20} MiB",
        f"{video.MAX_FRAMES:,} frames, {video.MAX_STREAMS} streams, 512 MiB or {video.MAX_SECONDS:.0f} seconds",
        f"XML above {voc.MAX_XML // 10**6} MB, with a document type",
        f"or deeper than {voc.MAX_DEPTH} levels",
        f"`data.yaml` above {yolo.MAX_YAML // 10**6} MB",
        f"outlines above {coco.MAX_OUTLINE // 10**6} million pixels",
        f"beyond {files.MOST_NESTED} levels",
        f"requests above {server.MOST_BYTES // 10**6} MB",
    ):
        assert text in PAGE
