// Light as facegcn/lighting.py has it: nine spherical harmonics, each times its cosine-lobe factor.
"use strict";

const ORDERS = [Math.PI, (2 * Math.PI) / Math.sqrt(3), (2 * Math.PI) / Math.sqrt(8)];
const COSINE = [Math.PI, (2 * Math.PI) / 3, Math.PI / 4]; // of max(cos, 0), by order
const NORMS = [1 / Math.sqrt(4 * Math.PI), Math.sqrt(3) / Math.sqrt(4 * Math.PI), (3 * Math.sqrt(5)) / Math.sqrt(12 * Math.PI)];
const ORDER_OF = [0, 1, 1, 1, 2, 2, 2, 2, 2];
const FACTORS = ORDERS.map((order, i) => order * NORMS[i]);
const AMBIENT_OFFSET = 0.8; // what the harmonics' first coefficient counts from
const LAMP = 0.85, LAMP_AMBIENT = 0.3; // a lamp's direct and scattered light, in albedos

function harmonics([x, y, z]) {
  const [a, b, c] = FACTORS;
  return [a, -b * y, b * z, -b * x, c * x * y, -c * y * z, (c / (2 * Math.sqrt(3))) * (3 * z * z - 1), -c * x * z,
    (c / 2) * (x * x - y * y)];
}

// Coefficients whose shading is a far lamp's, max(cos, 0) to order 2, in degrees from the front.
function lampLight(side, height) {
  const [yaw, pitch] = [side, height].map((degrees) => (degrees * Math.PI) / 180);
  const towards = [Math.sin(yaw) * Math.cos(pitch), Math.sin(pitch), Math.cos(yaw) * Math.cos(pitch)];
  const light = harmonics(towards).map((value, i) => (LAMP * value * COSINE[ORDER_OF[i]]) / ORDERS[ORDER_OF[i]] ** 2);
  light[0] += LAMP_AMBIENT / FACTORS[0];
  return light.map((value) => new THREE.Vector3(value, value, value));
}

// 27 coefficients, channel by channel, to one colour a harmonic.
function photoLight(gamma) {
  const offset = (i) => (i === 0 ? AMBIENT_OFFSET : 0);
  return ORDER_OF.map((_, i) => new THREE.Vector3(gamma[i] + offset(i), gamma[9 + i] + offset(i), gamma[18 + i] + offset(i)));
}

const VERTEX_SHADER = `
attribute vec3 restNormal, coarse, fine, fineLit;
attribute vec2 photoUv;
attribute float visible;
varying vec3 vNormal, vRest, vCoarse, vFine, vFineLit;
varying vec2 vUv, vPhotoUv;
varying float vVisible;
void main() {
  vNormal = mat3(modelMatrix) * normal;
  vRest = mat3(modelMatrix) * restNormal;
  vCoarse = coarse; vFine = fine; vFineLit = fineLit; vVisible = visible;
  vUv = uv; vPhotoUv = photoUv;
  gl_Position = projectionMatrix * modelViewMatrix * vec4(position, 1.0);
}`;

const FRAGMENT_SHADER = `
uniform vec3 photoLight[9], lampLight[9];
uniform mat3 lightTurn;
uniform float lamp, strength;
uniform int view;
uniform bool hasPhoto, hasAlbedo, hasLit;
uniform sampler2D photoMap, albedoMap, litMap;
varying vec3 vNormal, vRest, vCoarse, vFine, vFineLit;
varying vec2 vUv, vPhotoUv;
varying float vVisible;

vec3 shading(vec3 light[9], vec3 n) {
  return light[0] * ${FACTORS[0]} - light[1] * ${FACTORS[1]} * n.y + light[2] * ${FACTORS[1]} * n.z
    - light[3] * ${FACTORS[1]} * n.x + light[4] * ${FACTORS[2]} * n.x * n.y - light[5] * ${FACTORS[2]} * n.y * n.z
    + light[6] * ${FACTORS[2] / (2 * Math.sqrt(3))} * (3.0 * n.z * n.z - 1.0) - light[7] * ${FACTORS[2]} * n.x * n.z
    + light[8] * ${FACTORS[2] / 2} * (n.x * n.x - n.y * n.y);
}

void main() {
  vec3 n = normalize(vNormal), rest = normalize(vRest);
  if (view == 3) { gl_FragColor = vec4(n * 0.5 + 0.5, 1.0); return; }
  vec3 before = max(shading(photoLight, rest), 0.1); // no division by deep shadow
  vec3 photoNow = min(max(shading(photoLight, lightTurn * n), 0.1) / before, 4.0);
  vec3 lampNow = max(shading(lampLight, n), 0.0);
  vec3 albedo = vFine, lit = vFineLit;
  if (view == 1) { albedo = vCoarse; lit = vCoarse * max(shading(photoLight, rest), 0.0); }
  if (view == 2 && hasAlbedo) {
    albedo = texture2D(albedoMap, vUv).rgb;
    lit = albedo * clamp(vFineLit / max(vFine, 0.03), 0.0, 4.0);
  }
  if (view == 0) {
    if (hasLit) lit = texture2D(litMap, vUv).rgb;
    else if (hasPhoto) lit = mix(vFineLit, texture2D(photoMap, vPhotoUv).rgb, smoothstep(0.05, 0.4, vVisible));
    albedo = lit / max(before, 0.4);
  }
  vec3 color = strength * mix(lit * photoNow, albedo * lampNow, lamp);
  if (!gl_FrontFacing) color *= 0.35;
  gl_FragColor = vec4(clamp(color, 0.0, 1.0), 1.0);
}`;
