// One face: unpacking, expressions, drawing, turning.
const MOST_PIXELS = 1200, TURN_STEP = Math.PI / 36, ZOOM_STEP = 1.1;
const UPRIGHT = 0.05; // radians that the camera keeps from the poles

async function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

const blocks = new Map(); // what several faces share, by id

function block(id, read) {
  if (!blocks.has(id)) {
    const about = JSON.parse(document.getElementById(id).textContent);
    blocks.set(id, unpacked(about.data).then((buffer) => read(about, buffer)));
  }
  return blocks.get(id);
}

const readTriangles = (about, buffer) => new Uint32Array(buffer);

function readLayout({ count, triangles }, buffer) {
  return {
    vertices: new Uint32Array(buffer, 0, count), triangles: new Uint32Array(buffer, 4 * count, 3 * triangles),
    uv: Float32Array.from(new Uint16Array(buffer, 4 * count + 12 * triangles, 2 * count), (value) => value / 65535),
  };
}

function readShapes({ names, counts, step }, buffer) {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const corners = new Uint32Array(buffer, 0, total), moves = new Int16Array(buffer, 4 * total, 3 * total);
  let start = 0;
  return names.map((name, i) => {
    const [from, to] = [start, (start += counts[i])];
    return { name, step, corners: corners.subarray(from, to), moves: moves.subarray(3 * from, 3 * to) };
  });
}

// Unit normals: the sum of the triangles' cross products, as long as twice their area.
function vertexNormals(points, triangles) {
  const normals = new Float32Array(points.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const a = 3 * triangles[t], b = 3 * triangles[t + 1], c = 3 * triangles[t + 2];
    const ux = points[a] - points[b], uy = points[a + 1] - points[b + 1], uz = points[a + 2] - points[b + 2];
    const vx = points[b] - points[c], vy = points[b + 1] - points[c + 1], vz = points[b + 2] - points[c + 2];
    const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
    for (const corner of [a, b, c]) {
      normals[corner] += x; normals[corner + 1] += y; normals[corner + 2] += z;
    }
  }
  for (let i = 0; i < normals.length; i += 3) {
    const length = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
    normals[i] /= length; normals[i + 1] /= length; normals[i + 2] /= length;
  }
  return normals;
}

class Shape {
  // A face's corners and the arrays that the shader takes, some corners more than once where the texture is cut.
  constructor(about, buffer, triangles, layout, shapes) {
    const count = about.count, steps = new Int16Array(buffer, 0, 3 * count), bytes = new Uint8Array(buffer, 6 * count);
    this.rest = Float32Array.from({ length: 3 * count }, (_, i) => about.low[i % 3] + about.step * (steps[Math.floor(i / 3) + count * (i % 3)] + 32768));
    this.triangles = triangles;
    this.source = layout ? layout.vertices : Uint32Array.from({ length: count }, (_, i) => i);
    this.shapes = shapes;
    this.points = this.rest.slice();
    this.geometry = new THREE.BufferGeometry();
    const normals = vertexNormals(this.rest, triangles), pose = new THREE.Matrix4().set(...about.pose, 0, 0, 0, 1);
    this.set("position", this.rest, 3);
    this.set("normal", normals, 3);
    this.set("restNormal", normals, 3);
    this.set("photoUv", projected(this.rest, pose, about.camera), 2);
    this.set("coarse", bytes.subarray(0, 3 * count), 3);
    this.set("fine", bytes.subarray(3 * count, 6 * count), 3);
    this.set("fineLit", bytes.subarray(6 * count, 9 * count), 3);
    this.set("visible", bytes.subarray(9 * count, 10 * count), 1);
    this.geometry.setAttribute("uv", new THREE.BufferAttribute(layout ? layout.uv : new Float32Array(2 * count), 2));
    this.geometry.setIndex(new THREE.BufferAttribute(layout ? layout.triangles : triangles, 1));
  }

  set(name, values, width) {
    const attribute = this.geometry.getAttribute(name);
    const target = attribute ? attribute.array : new values.constructor(this.source.length * width);
    this.source.forEach((corner, i) => {
      for (let k = 0; k < width; k++) target[i * width + k] = values[corner * width + k];
    });
    if (attribute) attribute.needsUpdate = true;
    else this.geometry.setAttribute(name, new THREE.BufferAttribute(target, width, values instanceof Uint8Array));
  }

  // Moves the corners by how far weights are from those of the photo.
  express(weights, photo) {
    this.points.set(this.rest);
    this.shapes.forEach(({ corners, moves, step }, i) => {
      const factor = (weights[i] - photo[i]) * step;
      if (!factor) return;
      corners.forEach((corner, j) => {
        for (let k = 0; k < 3; k++) this.points[3 * corner + k] += factor * moves[3 * j + k];
      });
    });
    this.set("position", this.points, 3);
    this.set("normal", vertexNormals(this.points, this.triangles), 3);
  }
}

// Where the face camera sees each corner, as texture coordinates of the photo.
function projected(points, pose, { position, fov }) {
  const uv = new Float32Array((points.length / 3) * 2), point = new THREE.Vector3(), tangent = Math.tan((fov * Math.PI) / 360);
  for (let i = 0; i < points.length / 3; i++) {
    point.fromArray(points, 3 * i).applyMatrix4(pose);
    const depth = (position[2] - point.z) * tangent;
    uv[2 * i] = 0.5 + (point.x - position[0]) / depth / 2;
    uv[2 * i + 1] = 0.5 + (point.y - position[1]) / depth / 2;
  }
  return uv;
}

async function textureOf(image) {
  if (!image) return null;
  const own = new Image();
  own.src = image.getAttribute("src");
  try {
    await own.decode();
  } catch {
    return null; // vertex colours then
  }
  const texture = new THREE.Texture(own);
  texture.anisotropy = 4;
  texture.needsUpdate = true;
  return texture;
}

// The one WebGL context; views are copied out of it.
const painter = {
  renderer: null,
  start() {
    THREE.ColorManagement.enabled = false; // colours are mixed as the pictures have them
    this.renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true });
    this.renderer.setClearColor(0x000000, 0);
    this.renderer.outputColorSpace = "srgb-linear";
    this.renderer.domElement.addEventListener("webglcontextrestored", () => redrawAll());
  },
  draw(face) {
    const { width, height } = face.canvas;
    if (this.renderer.domElement.width !== width || this.renderer.domElement.height !== height) this.renderer.setSize(width, height, false);
    this.renderer.render(face.scene, face.camera);
    const paper = face.canvas.getContext("2d");
    paper.clearRect(0, 0, width, height);
    paper.drawImage(this.renderer.domElement, 0, 0);
  },
};

class Face {
  constructor(canvas, id, images) {
    Object.assign(this, { canvas, id, images, loaded: false, waiting: false, shapes: [] });
    this.about = JSON.parse(document.getElementById(id).textContent);
    this.view = 0;
    this.light = { turn: 0, lamp: 0, side: 50, height: 25, strength: 100 };
    this.camera = new THREE.PerspectiveCamera(this.about.camera.fov, 1, 0.5, 60);
    this.controls = new THREE.OrbitControls(this.camera, canvas);
    this.controls.enablePan = false;
    this.controls.rotateSpeed = 0.5; // the width of the view is half a turn
    this.controls.addEventListener("change", () => this.request());
    canvas.style.touchAction = "pan-y"; // a finger that goes up or down scrolls the page
    this.reset();
  }

  async load() {
    const { about } = this, none = Promise.resolve(null);
    const [buffer, triangles, layout, shapes, ...maps] = await Promise.all([
      unpacked(about.data), block(about.triangles, readTriangles), about.layout ? block(about.layout, readLayout) : none,
      about.shapes ? block(about.shapes, readShapes) : [], ...["photo", "albedo", "lit"].map((kind) =>
        textureOf(this.images[kind])),
    ]);
    const [photo, albedo, lit] = maps;
    this.maps = maps;
    this.shapes = shapes;
    this.photoWeights = shapes.map((_, i) => (about.weights ? about.weights[i] : 0));
    this.weights ||= this.photoWeights.slice();
    this.shape = new Shape(about, buffer, triangles, layout, shapes);
    this.uniforms = {
      photoLight: { value: photoLight(about.gamma) }, lampLight: { value: [] }, lightTurn: { value: null },
      lamp: { value: 0 }, strength: { value: 1 }, view: { value: 0 }, hasPhoto: { value: !!photo },
      hasAlbedo: { value: !!(albedo && layout) }, hasLit: { value: !!(lit && layout) }, photoMap: { value: photo },
      albedoMap: { value: albedo }, litMap: { value: lit },
    };
    const material = new THREE.ShaderMaterial({
      uniforms: this.uniforms, vertexShader: VERTEX_SHADER, fragmentShader: FRAGMENT_SHADER, side: THREE.DoubleSide });
    this.mesh = new THREE.Mesh(this.shape.geometry, material);
    this.mesh.frustumCulled = false;
    this.mesh.matrixAutoUpdate = false;
    this.mesh.matrix.set(...about.pose, 0, 0, 0, 1);
    this.scene = new THREE.Scene().add(this.mesh);
    this.loaded = true;
    this.express();
    this.draw();
  }

  free() {
    if (!this.loaded) return;
    this.loaded = false;
    this.shape.geometry.dispose();
    this.mesh.material.dispose();
    this.maps.forEach((map) => map && map.dispose());
    this.shape = this.mesh = this.scene = this.maps = this.uniforms = null;
    this.canvas.width = this.canvas.height = 0;
  }

  express() {
    if (this.loaded && this.shapes.length) this.shape.express(this.weights, this.photoWeights);
    this.request();
  }

  request() {
    if (this.waiting || !this.loaded) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    if (!this.loaded) return;
    const pixels = Math.min(MOST_PIXELS, Math.round(this.canvas.clientWidth * Math.min(2, devicePixelRatio || 1)));
    if (pixels < 1) return;
    if (this.canvas.width !== pixels) this.canvas.width = this.canvas.height = pixels;
    const { light, uniforms } = this;
    uniforms.view.value = this.view;
    uniforms.lamp.value = light.lamp / 100;
    uniforms.strength.value = light.strength / 100;
    uniforms.lampLight.value = lampLight(light.side, light.height);
    uniforms.lightTurn.value = turnAboutY((-light.turn * Math.PI) / 180);
    painter.draw(this);
  }

  reset() {
    const { position, fov } = this.about.camera;
    this.camera.fov = fov;
    this.camera.position.fromArray(position);
    this.controls.target.set(position[0], position[1], this.about.depth);
    const distance = position[2] - this.about.depth;
    this.controls.minDistance = distance / 4;
    this.controls.maxDistance = distance * 3;
    this.camera.updateProjectionMatrix();
    this.controls.update();
    this.request();
  }

  // By angles about the face, radians, and a factor of the distance.
  move(yaw, pitch, zoom) {
    const { controls, camera } = this, arm = new THREE.Spherical().setFromVector3(camera.position.clone().sub(controls.target));
    arm.theta += yaw;
    arm.phi = Math.min(Math.PI - UPRIGHT, Math.max(UPRIGHT, arm.phi + pitch));
    arm.radius = Math.min(controls.maxDistance, Math.max(controls.minDistance, arm.radius * zoom));
    camera.position.setFromSpherical(arm).add(controls.target);
    controls.update();
    this.request();
  }

  key(event) { // arrows turn the face as a drag does
    const moves = {
      ArrowLeft: [TURN_STEP, 0, 1], ArrowRight: [-TURN_STEP, 0, 1], ArrowUp: [0, TURN_STEP, 1],
      ArrowDown: [0, -TURN_STEP, 1], "+": [0, 0, 1 / ZOOM_STEP], "=": [0, 0, 1 / ZOOM_STEP], "-": [0, 0, ZOOM_STEP],
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "0" || event.key === "Home") this.reset();
    else if (moves[event.key]) this.move(...moves[event.key]);
    else return;
    event.preventDefault();
  }
}

function turnAboutY(angle) {
  const turn = new THREE.Matrix3(), [c, s] = [Math.cos(angle), Math.sin(angle)];
  return turn.set(c, 0, s, 0, 1, 0, -s, 0, c);
}
