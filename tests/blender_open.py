"""Opens exported files in Blender, by Blender's own Python: ``python blender_open.py JOBS.json RESULTS.json``.

A job: ``file``; ``camera``, the name of one in the file, or its ``fov_y``, ``pose`` (metre) and ``shift``; ``size`` of
the picture; ``png`` to render; ``frame`` at which vertices are read. Results tell what Blender has.
"""

import json
import math
import sys

import bpy
import mathutils

TO_Z_UP = mathutils.Matrix.Rotation(math.pi / 2, 4, "X")  # how Blender turns what it imports


def opened(path):
    """Imports into an empty scene; an OBJ's decimetres become metres."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = 30
    if path.endswith(".obj"):
        bpy.ops.wm.obj_import(filepath=path, global_scale=0.1)
        for material in used_materials():
            shine(material)
    else:
        bpy.ops.import_scene.gltf(filepath=path)


def used_materials():
    """The materials of the meshes; one that shows vertex colours where there is none."""
    for mesh in bpy.data.meshes:
        if not mesh.materials:
            mesh.materials.append(bpy.data.materials.new("colors"))
            mesh.materials[0].use_nodes = True
        yield from mesh.materials


def shine(material):
    """Shows the picture, or the vertex colours, as they are: OBJ has no word for colours that hold the light."""
    tree = material.node_tree
    source = next((node for node in tree.nodes if node.type == "TEX_IMAGE"), None)
    if source is None:
        source = tree.nodes.new("ShaderNodeVertexColor")
        source.layer_name = bpy.data.meshes[0].color_attributes[0].name
    glow = tree.nodes.new("ShaderNodeEmission")
    output = next(node for node in tree.nodes if node.type == "OUTPUT_MATERIAL")
    tree.links.new(source.outputs["Color"], glow.inputs["Color"])
    tree.links.new(glow.outputs["Emission"], output.inputs["Surface"])


def made_camera(fov_y, pose, shift=(0, 0)):
    """A camera from numbers, its pose in glTF's axes."""
    lens = bpy.data.cameras.new("made")
    lens.sensor_fit, lens.angle_y = "VERTICAL", fov_y
    lens.shift_x, lens.shift_y = shift
    item = bpy.data.objects.new("made", lens)
    bpy.context.scene.collection.objects.link(item)
    item.matrix_world = TO_Z_UP @ mathutils.Matrix(pose)
    return item


def rendered(job):
    """Renders with Cycles, colours as they are, nothing behind."""
    scene, camera = bpy.context.scene, job["camera"]
    scene.camera = bpy.data.objects[camera] if isinstance(camera, str) else made_camera(**camera)
    scene.render.resolution_x, scene.render.resolution_y = job["size"]
    scene.render.film_transparent, scene.view_settings.view_transform = True, "Standard"
    bpy.ops.preferences.addon_enable(module="cycles")
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 8, "CPU"
    scene.cycles.use_denoising, scene.cycles.filter_width = False, 0.01  # sharp as ours: one point a pixel, not a mix
    scene.render.filepath = job["png"]
    bpy.ops.render.render(write_still=True)


def facts(frame):
    """What is there: objects, shape keys, and vertices at a frame in world space."""
    bpy.context.scene.frame_set(frame)
    graph = bpy.context.evaluated_depsgraph_get()
    found = {"objects": sorted(item.name for item in bpy.data.objects), "meshes": {}, "cameras": {},
             "extras": sorted(bpy.context.scene.keys())}
    for item in bpy.data.objects:
        if item.type == "MESH":
            mesh, keys = item.evaluated_get(graph).to_mesh(), item.data.shape_keys
            found["meshes"][item.name] = {
                "vertices": [(item.matrix_world @ vertex.co)[:] for vertex in mesh.vertices],
                "keys": {key.name: key.value for key in keys.key_blocks} if keys else {},
                "images": [node.image.size[:] for material in item.data.materials for node in material.node_tree.nodes
                           if node.type == "TEX_IMAGE"]}
        elif item.type == "CAMERA":
            found["cameras"][item.name] = sorted(item.keys())
    return found


def main(jobs_path, results_path):
    results = []
    with open(jobs_path) as file:
        jobs = json.load(file)
    for job in jobs:
        opened(job["file"])
        results.append(facts(job.get("frame", 0)))
        if "png" in job:
            rendered(job)
    with open(results_path, "w") as file:
        json.dump(results, file)


main(*sys.argv[-2:])
