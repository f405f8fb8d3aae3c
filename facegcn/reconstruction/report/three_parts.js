export {
  BufferAttribute, BufferGeometry, ColorManagement, DoubleSide, Matrix3,
  Matrix4, Mesh, PerspectiveCamera, Scene, ShaderMaterial, Spherical, Texture, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
