#version 300 es
// Pass 1: displacement = Re sum_j shape_j * weight_j at every pixel of the motion, once per frame.
precision highp float;
precision highp int;
precision highp sampler2D;
precision highp sampler2DArray;

uniform sampler2DArray uModes; // layer j: x_re, x_im, y_re, y_im over the mode's scale; last: envelope, part, share
uniform sampler2D uWeights;    // column a mode, row a part: modal coordinate times the mode's scale
uniform int uCount;
uniform int uOverlay;          // a mode to show, -1 none, -2 all of them
uniform float uLimit;          // fraction of the long side no pixel may pass
uniform float uKnee;

out vec4 result; // displacement in fractions of the long side, envelope, overlay

void main() {
  ivec2 pixel = ivec2(gl_FragCoord.xy);
  vec2 moved = vec2(0.0);
  float shown = 0.0;
  vec4 about = texelFetch(uModes, ivec3(pixel, uCount), 0);
  int part = int(about.y + 0.5);
  for (int j = 0; j < uCount; j++) {
    vec2 weight = texelFetch(uWeights, ivec2(j, 0), 0).xy;
    if (about.z > 0.0) weight = mix(weight, texelFetch(uWeights, ivec2(j, part), 0).xy, about.z);
    if (weight == vec2(0.0) && j != uOverlay) continue;
    vec4 shape = texelFetch(uModes, ivec3(pixel, j), 0);
    moved += vec2(dot(shape.xy, vec2(weight.x, -weight.y)), dot(shape.zw, vec2(weight.x, -weight.y)));
    if (j == uOverlay) shown = min(length(shape), 1.0);
  }
  float envelope = about.x;
  if (uOverlay == -2) shown = envelope;
  float ratio = length(moved) / uLimit;
  if (ratio > uKnee) {
    float rest = 1.0 - uKnee;
    moved *= (uKnee + rest * tanh(min((ratio - uKnee) / rest, 9.0))) / ratio;
  }
  result = vec4(moved, envelope, shown);
}
