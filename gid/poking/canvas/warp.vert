#version 300 es
// Pass 2: a mesh, every vertex carried along by the motion at its source. On the ground what moves more lies nearer.
precision highp float;
precision highp int;
precision highp sampler2D;

uniform sampler2D uDisplacement;
uniform vec2 uAspect;  // width and height over the long side

in vec2 aPlace;        // fractions of width and height, at rest
in vec2 aSource;       // where its motion is
in float aOwner;       // segment that it carries

out vec2 vPlace;
out float vOverlay;
flat out float vOwner;

void main() {
  vec4 motion = textureLod(uDisplacement, aSource, 0.0);
  vec2 moved = aPlace + motion.xy / uAspect;
  vPlace = aPlace;
  vOverlay = motion.w;
  vOwner = aOwner;
  gl_Position = vec4(moved.x * 2.0 - 1.0, 1.0 - moved.y * 2.0, 0.99 - 1.98 * clamp(motion.z, 0.0, 1.0), 1.0);
}
