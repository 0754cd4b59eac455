// WebGL2 in two passes: sum the modes into a small floating point picture, then draw the photo as a mesh that reads it.

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
    this.scaled = new Float32Array(MAX_MODES * 2);
    this.photo = null;
    this.motion = null;
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
    this.indexBuffer = null;
    this.framebuffer = null;
    if (this.photo) this.setPhoto(this.photo);
    if (this.motion) this.setMotion(this.motion);
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
    const { gl, canvas } = this;
    const scale = MESH_LONG_SIDE / Math.max(canvas.width, canvas.height);
    this.grid = [canvas.width, canvas.height].map((side) => Math.max(2, Math.round(side * scale)));
    const [columns, rows] = this.grid;
    const indices = new Uint16Array((columns - 1) * (rows - 1) * 6);
    let n = 0;
    for (let y = 0; y + 1 < rows; y++) {
      for (let x = 0; x + 1 < columns; x++) {
        const a = y * columns + x;
        for (const index of [a, a + columns, a + 1, a + 1, a + columns, a + columns + 1]) indices[n++] = index;
      }
    }
    if (this.indexBuffer) gl.deleteBuffer(this.indexBuffer);
    this.indexBuffer = gl.createBuffer();
    this.indexCount = n;
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.indexBuffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
  }

  /** motion: {model, scales} of motion.js. Throws when it has more modes than the shader takes. */
  setMotion(motion) {
    const { gl } = this;
    const { model, scales } = motion;
    if (model.count > MAX_MODES) throw new Error(`The motion has ${model.count} modes; ${MAX_MODES} can be drawn.`);
    this.motion = motion;
    const { width, height, count, pixels } = model;
    const data = new Float32Array((count + 1) * pixels * 4);
    for (let j = 0; j < count; j++) {
      const factor = scales[j] > 0 ? 1 / scales[j] : 0;
      for (let o = j * pixels * 4; o < (j + 1) * pixels * 4; o++) data[o] = model.shapes[o] * factor;
    }
    const energy = model.energy(model.ones);
    const peak = model.peak(model.ones) || 1;
    for (let p = 0; p < pixels; p++) data[(count * pixels + p) * 4] = Math.sqrt(energy[p]) / peak;
    for (const old of [this.modes, this.target]) if (old) gl.deleteTexture(old);
    this.modes = texture(gl, gl.TEXTURE_2D_ARRAY, gl.NEAREST);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.RGBA16F, width, height, count + 1, 0, gl.RGBA, gl.FLOAT, data);
    this.target = texture(gl, gl.TEXTURE_2D, gl.LINEAR);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA16F, width, height);
    if (!this.framebuffer) this.framebuffer = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.target, 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  /** re, im: weights of the shapes. overlay: mode to show, -1 none, -2 all; tint: its strength, 0 to 1. */
  draw(re, im, overlay = -1, tint = 0) {
    const { gl, canvas } = this;
    if (!this.modes || !this.photoTexture || gl.isContextLost()) return;
    const { model, scales } = this.motion;
    for (let j = 0; j < model.count; j++) {
      this.scaled[2 * j] = Number.isFinite(re[j]) ? re[j] * scales[j] : 0;
      this.scaled[2 * j + 1] = Number.isFinite(im[j]) ? im[j] * scales[j] : 0;
    }
    let { program, uniforms } = this.accumulate;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.framebuffer);
    gl.viewport(0, 0, model.width, model.height);
    gl.disable(gl.DEPTH_TEST);
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.modes);
    gl.uniform1i(uniforms.uModes, 0);
    gl.uniform2fv(uniforms.uWeights, this.scaled);
    gl.uniform1i(uniforms.uCount, model.count);
    gl.uniform1i(uniforms.uOverlay, overlay);
    gl.uniform1f(uniforms.uLimit, DISPLACEMENT_LIMIT);
    gl.uniform1f(uniforms.uKnee, ELASTIC_KNEE);
    gl.drawArrays(gl.TRIANGLES, 0, 3);

    ({ program, uniforms } = this.warp);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.target);
    gl.uniform1i(uniforms.uDisplacement, 0);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.photoTexture);
    gl.uniform1i(uniforms.uPhoto, 1);
    gl.uniform2i(uniforms.uGrid, ...this.grid);
    gl.uniform2f(uniforms.uAspect, ...model.aspect);
    gl.uniform1f(uniforms.uTint, tint);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.indexBuffer);
    gl.drawElements(gl.TRIANGLES, this.indexCount, gl.UNSIGNED_SHORT, 0);
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
