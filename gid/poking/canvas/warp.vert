#version 300 es
// Pass 2: a mesh over the photo, every vertex carried along; what moves more lies nearer and hides what it covers.
precision highp float;
precision highp int;
precision highp sampler2D;

uniform sampler2D uDisplacement;
uniform ivec2 uGrid;   // vertices across and down
uniform vec2 uAspect;  // width and height over the long side

out vec2 vPlace;
out float vOverlay;

void main() {
  ivec2 vertex = ivec2(gl_VertexID % uGrid.x, gl_VertexID / uGrid.x);
  vec2 place = vec2(vertex) / vec2(uGrid - 1);
  vec4 motion = textureLod(uDisplacement, place, 0.0);
  vec2 moved = place + motion.xy / uAspect;
  vPlace = place;
  vOverlay = motion.w;
  gl_Position = vec4(moved.x * 2.0 - 1.0, 1.0 - moved.y * 2.0, 0.99 - 1.98 * clamp(motion.z, 0.0, 1.0), 1.0);
}
