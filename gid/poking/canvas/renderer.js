// WebGL2 in two passes: sum the modes into a small floating point picture, then draw the photo as a mesh that reads it.

import { groundMesh } from "./layers.js";
import { DISPLACEMENT_LIMIT, ELASTIC_KNEE } from "./modes.js";

export const SHADERS = ["accumulate.vert", "accumulate.frag", "warp.vert", "warp.frag"];
const MAX_MODES = 64;
const MESH_LONG_SIDE = 160;

/** Why this browser cannot draw the canvas, or null when it can. */
export function missingFeature(gl) {
  if (!gl) return "this browser has no WebGL2, or it is turned off";
  if (!gl.getExtension("EXT_color_buffer_float") && !gl.getExtension("EXT_color_buffer_half_float")) {
    return "this graphics driver cannot draw into floating point pictures";
  }
  if (gl.getParameter(gl.MAX_VERTEX_TEXTURE_IMAGE_UNITS) < 1) return "this graphics driver has no vertex textures";
  return null;
}

function compile(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text.trim());
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error(`The shaders did not compile: ${[...logs, gl.getProgramInfoLog(program)].join(" ")}`);
  }
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(program, i);
    uniforms[name.replace("[0]", "")] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}

function texture(gl, target, filter) {
  const made = gl.createTexture();
  gl.bindTexture(target, made);
  gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, filter);
  gl.texParameteri(target, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
  gl.texParameteri(target, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  return made;
}

/** Draws one photo with one motion. Survives a lost context: call restore() when the browser gives it back. */
export class Renderer {
  /** Throws an Error with the reason when the browser cannot do it. */
  constructor(canvas, shaders) {
    this.canvas = canvas;
    this.shaders = shaders;
    this.gl = canvas.getContext("webgl2", { alpha: false, antialias: false, powerPreference: "low-power" });
    const missing = missingFeature(this.gl);
    if (missing) throw new Error(missing);
    this.scaled = new Float32Array(2);
    this.photo = null;
    this.motion = null;
    this.layers = null;
    this.restore();
  }

  /** Builds everything on the graphics card anew from what is kept here. */
  restore() {
    const { gl, shaders } = this;
    missingFeature(gl); // asks for the extensions again
    this.accumulate = compile(gl, shaders["accumulate.vert"], shaders["accumulate.frag"]);
    this.warp = compile(gl, shaders["warp.vert"], shaders["warp.frag"]);
    this.photoTexture = null;
    this.modes = null;
    this.target = null;
    this.weights = null;
    this.framebuffer = null;
    this.meshes = {};
    this.pictures = null;
    if (this.photo) this.setPhoto(this.photo);
    if (this.motion) this.setMotion(this.motion, this.layers);
  }

  /** image: a decoded HTMLImageElement or ImageBitmap. The canvas takes its size, up to `longSide`. */
  setPhoto(image, longSide = 1024) {
    const { gl, canvas } = this;
    this.photo = image;
    const width = image.naturalWidth || image.width;
    const height = image.naturalHeight || image.height;
    const scale = Math.min(1, longSide / Math.max(width, height));
    canvas.width = Math.max(1, Math.round(width * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    if (this.photoTexture) gl.deleteTexture(this.photoTexture);
    this.photoTexture = texture(gl, gl.TEXTURE_2D, gl.LINEAR);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
    if (scale < 1) {
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    }
    this.makeMesh();
  }

  makeMesh() {
    const scale = MESH_LONG_SIDE / Math.max(this.canvas.width, this.canvas.height);
    this.grid = [this.canvas.width, this.canvas.height].map((side) => Math.max(2, Math.round(side * scale)));
    this.setMesh("ground", groundMesh(...this.grid, this.layers));
  }

  /** mesh: {places, sources, owners, triangles} of layers.js, or null. */
  setMesh(name, mesh) {
    const { gl } = this;
    const old = this.meshes[name];
    if (old) {
      for (const buffer of old.buffers) gl.deleteBuffer(buffer);
      gl.deleteVertexArray(old.array);
    }
    delete this.meshes[name];
    if (!mesh) return;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const buffers = [["aPlace", mesh.places, 2], ["aSource", mesh.sources, 2], ["aOwner", mesh.owners, 1]].map(
      ([attribute, data, size]) => {
        const buffer = gl.createBuffer();
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
        const location = gl.getAttribLocation(this.warp.program, attribute);
        gl.enableVertexAttribArray(location);
        gl.vertexAttribPointer(location, size, gl.FLOAT, false, 0, 0);
        return buffer;
      },
    );
    const indices = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, indices);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    this.meshes[name] = { array, buffers: [...buffers, indices], count: mesh.triangles.length };
  }

  /** layers: what openLayers() of layers.js gives, or null: the photo is then drawn as one. */
  setLayers(layers) {
    const { gl } = this;
    this.layers = layers;
    for (const old of this.pictures ?? []) gl.deleteTexture(old);
    this.pictures = null;
    this.setMesh("front", layers);
    if (layers) {
      this.pictures = [layers.behind, layers.mask].map((image) => {
        const made = texture(gl, gl.TEXTURE_2D, gl.LINEAR);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
        return made;
      });
    }
    if (this.photo) this.makeMesh();
  }

  /** motion: {model, scales} of motion.js. Throws when it has more modes than the shader takes. */
  setMotion(motion, layers = null) {
    const { gl } = this;
    const { model, scales } = motion;
    if (model.count > MAX_MODES) throw new Error(`The motion has ${model.count} modes; ${MAX_MODES} can be drawn.`);
    this.motion = motion;
    this.setLayers(layers);
    const { width, height, count, pixels } = model;
    const data = new Float32Array((count + 1) * pixels * 4);
    for (let j = 0; j < count; j++) {
      const factor = scales[j] > 0 ? 1 / scales[j] : 0;
      for (let o = j * pixels * 4; o < (j + 1) * pixels * 4; o++) data[o] = model.shapes[o] * factor;
    }
    const energy = model.energy(model.ones);
    const peak = model.peak(model.ones) || 1;
    for (let p = 0; p < pixels; p++) {
      const { owners, shares } = model.parts ?? { owners: [], shares: [] };
      data.set([Math.sqrt(energy[p]) / peak, owners[p] ?? 0, shares[p] ?? 0], (count * pixels + p) * 4);
    }
    this.scaled = new Float32Array(2 * model.coordinates);
    for (const old of [this.modes, this.target, this.weights]) if (old) gl.deleteTexture(old);
    this.modes = texture(gl, gl.TEXTURE_2D_ARRAY, gl.NEAREST);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.RGBA16F, width, height, count + 1, 0, gl.RGBA, gl.FLOAT, data);
    this.target = texture(gl, gl.TEXTURE_2D, gl.LINEAR);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA16F, width, height);
    this.weights = texture(gl, gl.TEXTURE_2D, gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RG32F, count, model.groups);
    if (!this.framebuffer) this.framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.target, 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  /** re, im: weights of the shapes, [part][mode]. overlay: mode to show, -1 none, -2 all; tint: its strength, 0 to 1. */
  draw(re, im, overlay = -1, tint = 0) {
    const { gl, canvas } = this;
    if (!this.modes || !this.photoTexture || gl.isContextLost()) return;
    const { model, scales } = this.motion;
    for (let k = 0; k < model.coordinates; k++) {
      const scale = scales[k % model.count];
      this.scaled[2 * k] = Number.isFinite(re[k]) ? re[k] * scale : 0;
      this.scaled[2 * k + 1] = Number.isFinite(im[k]) ? im[k] * scale : 0;
    }
    let { program, uniforms } = this.accumulate;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.viewport(0, 0, model.width, model.height);
    gl.disable(gl.DEPTH_TEST);
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.modes);
    gl.uniform1i(uniforms.uModes, 0);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.weights);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, model.count, model.groups, gl.RG, gl.FLOAT, this.scaled);
    gl.uniform1i(uniforms.uWeights, 1);
    gl.uniform1i(uniforms.uCount, model.count);
    gl.uniform1i(uniforms.uOverlay, overlay);
    gl.uniform1f(uniforms.uLimit, DISPLACEMENT_LIMIT);
    gl.uniform1f(uniforms.uKnee, ELASTIC_KNEE);
    gl.drawArrays(gl.TRIANGLES, 0, 3);

    ({ program, uniforms } = this.warp);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(program);
    const textures = { uDisplacement: this.target, uPhoto: this.photoTexture };
    [textures.uBehind, textures.uMask] = this.pictures ?? [this.photoTexture, this.photoTexture];
    Object.entries(textures).forEach(([name, value], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, value);
      gl.uniform1i(uniforms[name], unit);
    });
    gl.uniform2f(uniforms.uAspect, ...model.aspect);
    gl.uniform1f(uniforms.uTint, tint);
    // At rest the photo itself is shown: what is made up behind objects has no part in it.
    const layered = this.layers !== null && this.scaled.some((value) => value !== 0);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.uniform1i(uniforms.uPart, layered ? 1 : 0);
    this.drawMesh("ground");
    if (!layered) return;
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.uniform1i(uniforms.uPart, 2);
    this.drawMesh("front");
    gl.disable(gl.BLEND);
  }

  drawMesh(name) {
    const { gl } = this;
    const mesh = this.meshes[name];
    if (!mesh) return;
    gl.bindVertexArray(mesh.array);
    gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
    gl.bindVertexArray(null);
  }

  /** What pass 1 left: Float32Array [row][column][dx, dy, envelope, overlay], fractions of the long side. */
  readDisplacement() {
    const { gl } = this;
    const { width, height } = this.motion.model;
    const data = new Float32Array(width * height * 4);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.FLOAT, data);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    return data;
  }

  /** The drawn picture, top row first: Uint8Array [row][column][r, g, b, a]. Call in the same task as draw(). */
  readPicture() {
    const { gl, canvas } = this;
    const { width, height } = canvas;
    const flipped = new Uint8Array(width * height * 4);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, flipped);
    const data = new Uint8Array(flipped.length);
    for (let y = 0; y < height; y++) {
      data.set(flipped.subarray((height - 1 - y) * width * 4, (height - y) * width * 4), y * width * 4);
    }
    return data;
  }
}
