#version 300 es
precision highp float;
precision highp int;

uniform sampler2D uPhoto;
uniform sampler2D uBehind; // the photo completed behind its objects
uniform sampler2D uMask;   // red: how much of a pixel is an object's; green: whose
uniform int uPart;         // 0 the photo, 1 the plate, 2 the objects
uniform float uTint;       // strength of the overlay, 0 to 1

in vec2 vPlace;
in float vOverlay;
flat in float vOwner;
out vec4 colour;

vec3 heat(float t) { // violet, red, yellow
  return clamp(vec3(0.35 + 1.1 * t, 1.5 * t * t - 0.1, 0.75 - 1.2 * t), 0.0, 1.0);
}

vec3 tinted(vec3 photo) {
  float grey = dot(photo, vec3(0.299, 0.587, 0.114)) * 0.7;
  float shown = smoothstep(0.03, 0.9, vOverlay);
  return mix(photo, mix(vec3(grey), heat(shown) * (0.35 + 0.9 * grey), min(1.6 * shown, 0.85)), uTint);
}

void main() {
  vec2 place = 1.0 - abs(1.0 - abs(vPlace)); // mirrored beyond the edges
  vec3 photo = texture(uPhoto, place).rgb;
  float alpha = 1.0;
  if (uPart > 0) {
    alpha = texture(uMask, place).r;
    vec3 behind = texture(uBehind, place).rgb;
    if (uPart == 1) {
      photo = alpha > 0.004 ? behind : photo;
      alpha = 1.0;
    } else {
      ivec2 size = textureSize(uMask, 0);
      float owner = texelFetch(uMask, min(ivec2(place * vec2(size)), size - 1), 0).g * 255.0;
      if (alpha < 0.004 || abs(owner - vOwner) > 0.5) discard;
      // Over what lies behind, this makes up the photo.
      photo = clamp(photo - (1.0 - alpha) * behind, 0.0, alpha) / alpha;
    }
  }
  if (uTint > 0.0) photo = tinted(photo);
  colour = vec4(photo * alpha, alpha);
}
