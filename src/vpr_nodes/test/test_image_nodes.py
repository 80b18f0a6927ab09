"""segmentation and embedding: every encoding handled or refused by name, stamps kept."""

import numpy as np
import pytest
import torch
from conftest import image_msg, textured
from sensor_msgs.msg import CompressedImage, Image
from vpr_interfaces.msg import Descriptor

from vpr.models.attention_network import AttentionEncoderDecoder
from vpr.models.light_segmenter import LightSegmenter
from vpr.semantics.training import save_weights


def test_descriptor_keeps_stamp_and_frame_and_is_normalised(probe, nodes):
    nodes.start("embedding")
    descriptors = probe.hear(Descriptor, "descriptor")
    camera = probe.publisher(Image, "camera/image_raw")
    camera.publish(image_msg(textured(1), 5_000_000_007))
    probe.until(lambda: len(descriptors) == 1)
    header = descriptors[0].header
    assert (header.stamp.sec, header.stamp.nanosec) == (5, 7)
    assert header.frame_id == "camera_optical"
    assert np.linalg.norm(descriptors[0].data) == pytest.approx(1.0, abs=1e-3)
    assert "@" in descriptors[0].model


def test_the_same_picture_in_other_wrappings_is_the_same_place(probe, nodes):
    nodes.start("embedding")
    descriptors = probe.hear(Descriptor, "descriptor")
    camera = probe.publisher(Image, "camera/image_raw")
    picture = textured(2)
    camera.publish(image_msg(picture, 10**9))
    camera.publish(image_msg(picture[:, :, ::-1].copy(), 2 * 10**9, "rgb8"))
    camera.publish(image_msg(picture, 3 * 10**9, padding=5))
    probe.until(lambda: len(descriptors) == 3)
    first, *others = (np.array(descriptor.data) for descriptor in descriptors)
    for other in others:
        np.testing.assert_allclose(other, first, atol=1e-5)


def test_unusable_images_are_counted_by_name_and_the_node_lives_on(probe, nodes):
    child = nodes.start("segmentation")
    attention = probe.hear(Image, "attention")
    camera = probe.publisher(Image, "camera/image_raw")
    good = image_msg(textured(3), 10**9)
    wrong_encoding = image_msg(textured(3), 2 * 10**9, "32SC4")
    depth = image_msg(textured(3)[:, :, 0], 3 * 10**9, "16UC1")
    empty = Image(encoding="bgr8")
    truncated = image_msg(textured(3), 4 * 10**9)
    truncated.data = truncated.data[:100]
    for message in (wrong_encoding, depth, empty, truncated, good):
        camera.publish(message)
    probe.until(lambda: len(attention) == 1)
    probe.until(lambda: probe.status("segmentation").get("dropped truncated_image") == "1")
    status = probe.status("segmentation")
    assert status["dropped unsupported_encoding"] == "2"
    assert status["dropped empty_image"] == "1"
    assert attention[0].encoding == "mono8"
    assert child.poll() is None


def test_compressed_images_are_taken_and_damaged_ones_counted(probe, nodes):
    nodes.start("segmentation")
    attention = probe.hear(Image, "attention")
    camera = probe.publisher(CompressedImage, "camera/image_raw/compressed")
    import cv2

    jpeg = cv2.imencode(".jpg", textured(4))[1].tobytes()
    camera.publish(CompressedImage(format="jpeg", data=jpeg))
    camera.publish(CompressedImage(format="jpeg", data=b"not a jpeg"))
    probe.until(lambda: len(attention) == 1)
    probe.until(lambda: probe.status("segmentation").get("dropped undecodable_image") == "1")


def test_attention_pooling_waits_for_the_attention_of_the_same_stamp(probe, nodes):
    nodes.start("embedding", attention="pooling")
    descriptors = probe.hear(Descriptor, "descriptor")
    camera = probe.publisher(Image, "camera/image_raw")
    attention = probe.publisher(Image, "attention")
    camera.publish(image_msg(textured(5), 10**9))
    camera.publish(image_msg(textured(6), 2 * 10**9))
    attention.publish(image_msg(np.full((30, 40), 200, np.uint8), 2 * 10**9, "mono8"))
    probe.until(lambda: len(descriptors) == 1)
    assert descriptors[0].header.stamp.sec == 2


def test_silence_of_the_camera_is_said(probe, nodes):
    nodes.start("segmentation")
    probe.until(lambda: "no images" in probe.status("segmentation").get("message", ""))


def test_an_attention_map_of_another_image_is_counted_and_refused(probe, nodes):
    nodes.start("embedding", attention="pooling")
    descriptors = probe.hear(Descriptor, "descriptor")
    camera = probe.publisher(Image, "camera/image_raw")
    attention = probe.publisher(Image, "attention")
    for second, shape in ((1, (10, 40)), (2, (30, 40))):
        camera.publish(image_msg(textured(7), second * 10**9))
        attention.publish(image_msg(np.full(shape, 200, np.uint8), second * 10**9, "mono8"))
    probe.until(lambda: len(descriptors) == 1)
    assert descriptors[0].header.stamp.sec == 2
    probe.until(lambda: probe.status("embedding").get("dropped EmbeddingError") == "1")


def test_images_whose_attention_never_comes_are_counted(probe, nodes):
    nodes.start("embedding", attention="pooling")
    camera = probe.publisher(Image, "camera/image_raw")
    for second in range(1, 14):  # ten are kept waiting
        camera.publish(image_msg(textured(8), second * 10**9))
        probe.spin(0.05)
    probe.until(lambda: probe.status("embedding").get("dropped no_attention_at_image") == "3")


def test_the_semantic_mask_and_its_overlay_keep_stamp_and_frame(probe, nodes):
    nodes.start("segmentation", source="semantic_mask", overlay=True)
    attention = probe.hear(Image, "attention")
    overlay = probe.hear(Image, "attention_overlay")
    camera = probe.publisher(Image, "camera/image_raw")
    picture = textured(9)
    camera.publish(image_msg(picture, 5_000_000_007))
    probe.until(lambda: attention and overlay)
    for message in (attention[0], overlay[0]):
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (5, 7)
        assert message.header.frame_id == "camera_optical"
    assert (attention[0].encoding, attention[0].width) == ("mono8", 160)
    assert (overlay[0].height, overlay[0].width) == picture.shape[:2]
    assert overlay[0].encoding == "bgr8"


def test_depth_of_the_same_stamp_is_waited_for_and_fused(probe, nodes):
    nodes.start("segmentation", depth_topic_used=True, floor=0.0)
    attention = probe.hear(Image, "attention")
    camera = probe.publisher(Image, "camera/image_raw")
    depth = probe.publisher(Image, "camera/depth/image_raw")
    picture = textured(10)
    metres = np.full(picture.shape[:2], 20_000, np.uint16)
    metres[:, picture.shape[1] // 2 :] = 1_000
    camera.publish(image_msg(picture, 10**9))
    camera.publish(image_msg(picture, 2 * 10**9))
    message = image_msg(np.zeros(picture.shape[:2], np.uint8), 2 * 10**9, "mono8")
    message.encoding, message.step = "16UC1", 2 * picture.shape[1]
    message.data = metres.tobytes()
    depth.publish(message)
    probe.until(lambda: len(attention) == 1)
    assert attention[0].header.stamp.sec == 2
    map_ = np.array(attention[0].data).reshape(attention[0].height, attention[0].width)
    assert map_[:, 100:].mean() > 3 * map_[:, :60].mean()


@pytest.mark.parametrize("source", ["semantic_boundaries", "learned", "encoder_decoder"])
def test_every_source_of_attention_runs_in_the_node(probe, nodes, tmp_path, source):
    parameters = {"source": source}
    if source == "encoder_decoder":  # the one whose weights are not embedded
        weights = tmp_path / "network.safetensors"
        torch.manual_seed(0)
        save_weights(AttentionEncoderDecoder(), weights)
        parameters |= {"attention_weights": str(weights), "floor": 0.0}  # untrained: nearly flat
    nodes.start("segmentation", **parameters)
    attention = probe.hear(Image, "attention")
    camera = probe.publisher(Image, "camera/image_raw")
    camera.publish(image_msg(textured(11), 5_000_000_007))
    probe.until(lambda: len(attention) == 1)
    assert (attention[0].header.stamp.sec, attention[0].header.stamp.nanosec) == (5, 7)
    assert (attention[0].encoding, attention[0].width) == ("mono8", 160)
    assert len(set(attention[0].data)) > 1


def test_grey_images_and_images_smaller_than_the_networks_stride_get_their_mask(probe, nodes):
    nodes.start("segmentation", source="semantic_mask")
    attention = probe.hear(Image, "attention")
    camera = probe.publisher(Image, "camera/image_raw")
    camera.publish(image_msg(textured(12)[:, :, 0], 10**9, "mono8"))
    camera.publish(image_msg(textured(12)[:3, :5], 2 * 10**9))
    camera.publish(image_msg(textured(12)[:1, :1], 3 * 10**9))
    probe.until(lambda: len(attention) == 3)
    assert [message.header.stamp.sec for message in attention] == [1, 2, 3]
    assert [message.height for message in attention] == [120, 96, 160]


def test_weights_of_another_network_refuse_the_start_and_name_the_layer(nodes, tmp_path):
    weights = tmp_path / "other.safetensors"
    save_weights(LightSegmenter(7), weights)
    child = nodes.start("segmentation", source="semantic_mask", segmenter_weights=str(weights))
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "other.safetensors: layer 'classify.weight' is (7" in output


def test_an_unknown_class_refuses_the_start_and_the_known_ones_are_listed(nodes):
    child = nodes.start("segmentation", source="semantic_mask", static_classes="[tree]")
    output, _ = child.communicate(timeout=40)
    assert child.returncode == 2
    assert "unknown class 'tree'" in output
    assert "road, sidewalk, building" in output
