#version 300 es
precision highp float;

uniform sampler2D uPhoto;
uniform float uTint; // strength of the overlay, 0 to 1

in vec2 vPlace;
in float vOverlay;
out vec4 colour;

vec3 heat(float t) { // violet, red, yellow
  return clamp(vec3(0.35 + 1.1 * t, 1.5 * t * t - 0.1, 0.75 - 1.2 * t), 0.0, 1.0);
}

void main() {
  vec3 photo = texture(uPhoto, vPlace).rgb;
  if (uTint > 0.0) {
    float grey = dot(photo, vec3(0.299, 0.587, 0.114)) * 0.7;
    float shown = smoothstep(0.03, 0.9, vOverlay);
    vec3 tinted = heat(shown) * (0.35 + 0.9 * grey);
    photo = mix(photo, mix(vec3(grey), tinted, min(1.6 * shown, 0.85)), uTint);
  }
  colour = vec4(photo, 1.0);
}
