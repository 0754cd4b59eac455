// Reads the layers of a photo behind the motion in the canvas's file (gid/poking/page.py: encode_canvas).

const PLACE_UNIT = 8192; // of the photo's sides
const SOURCE_UNIT = 65535;

/**
 * The section after `start` bytes of `buffer`, described by header.layers, or null where a photo has none.
 * places and sources are fractions of width and height, [vertex][x, y]; owners the segment of each vertex; triangles
 * three vertices each, far to near; ground [row][column][x, y] says where each cell of the plate takes its motion from;
 * members [row][column][owner, share of 255], on the grid of the motion, who moves with whom.
 */
export function decodeLayers(buffer, header, start) {
  const described = header.layers;
  if (!described) return null;
  const { vertices, triangles, columns, rows, behind, mask } = described;
  let at = start;
  const take = (bytes) => {
    if (at + bytes > buffer.byteLength) throw new Error("The motion file is cut short.");
    const part = buffer.slice(at, at + bytes);
    at += bytes;
    return part;
  };
  const fractions = (integers, unit) => Float32Array.from(integers, (value) => value / unit);
  return {
    places: fractions(new Int16Array(take(vertices * 4)), PLACE_UNIT),
    sources: fractions(new Uint16Array(take(vertices * 4)), SOURCE_UNIT),
    owners: Float32Array.from(new Uint16Array(take(vertices * 2))),
    ground: fractions(new Uint16Array(take(columns * rows * 4)), SOURCE_UNIT),
    triangles: Uint32Array.from(new Uint16Array(take(triangles * 6))),
    members: new Uint8Array(take(header.width * header.height * 2)),
    columns,
    rows,
    behind: new Blob([take(behind)], { type: "image/jpeg" }),
    mask: new Blob([take(mask)], { type: "image/png" }),
  };
}

/** Decodes the pictures of layers: {...layers, behind, mask} as ImageBitmaps, their bytes as they are. */
export async function openLayers(layers) {
  if (!layers) return null;
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const [behind, mask] = await Promise.all([layers.behind, layers.mask].map((blob) => createImageBitmap(blob, options)));
  return { ...layers, behind, mask };
}

/** The plate's mesh over a grid of columns x rows vertices: {places, sources, owners, triangles}. */
export function groundMesh(columns, rows, layers) {
  const count = columns * rows;
  const places = new Float32Array(count * 2);
  const sources = new Float32Array(count * 2);
  const triangles = new Uint32Array((columns - 1) * (rows - 1) * 6);
  let n = 0;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const a = y * columns + x;
      const place = [x / (columns - 1), y / (rows - 1)];
      places.set(place, 2 * a);
      sources.set(layers ? groundSource(layers, place) : place, 2 * a);
      if (y + 1 < rows && x + 1 < columns) {
        triangles.set([a, a + columns, a + 1, a + 1, a + columns, a + columns + 1], n);
        n += 6;
      }
    }
  }
  return { places, sources, owners: new Float32Array(count), triangles };
}

/** A place's own motion, unless its cell takes another one's. */
function groundSource({ ground, columns, rows }, [x, y]) {
  const column = Math.min(Math.floor(x * columns), columns - 1);
  const row = Math.min(Math.floor(y * rows), rows - 1);
  const at = (row * columns + column) * 2;
  const source = [ground[at], ground[at + 1]];
  const own = Math.abs(source[0] * columns - column - 0.5) < 0.4 && Math.abs(source[1] * rows - row - 0.5) < 0.4;
  return own ? [x, y] : source;
}
