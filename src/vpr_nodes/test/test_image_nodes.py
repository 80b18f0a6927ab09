"""segmentation and embedding: every encoding handled or refused by name, stamps kept."""

import numpy as np
import pytest
from conftest import image_msg, textured
from sensor_msgs.msg import CompressedImage, Image
from vpr_interfaces.msg import Descriptor


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
