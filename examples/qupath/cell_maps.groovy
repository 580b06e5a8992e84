/*
 * Show the map of one slide over it, cell by cell: QuPath's measurement maps. For research use only.
 *
 * QuPath 0.5 or later. Open the image, then Automate > Script editor, open this file, Run. It asks for the slide's
 * result folder, which holds cells.geojson.gz (`wsi-pipeline run --cells`), or a folder with the slide's
 * .cells.geojson.gz (`wsi-pipeline export --to geojson-cells`). Cells of another slide are refused, by name and by size.
 *
 * QuPath keeps all objects in memory: up to some 200,000 cells are comfortable. For more, run with larger cells
 * (`--cell 50um`), or open the map as an image (`--to ome-zarr-0.4`).
 */
import com.google.gson.Gson
import java.util.zip.GZIPInputStream
import javafx.application.Platform
import qupath.fx.dialogs.FileChoosers
import qupath.lib.color.ColorMaps
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.scripting.QPEx
import qupath.lib.gui.tools.MeasurementMapper
import qupath.lib.io.PathIO

// ---- Settings -------------------------------------------------------------------------------------------------------

// Folder, or the .cells.geojson.gz itself; empty to be asked.
String cells = ''

// What to show: 'p(IDC)', or 'spread of p(IDC)' where the run had --tta.
String measurement = 'p(IDC)'

// Values of the first and the last colour, and the colours: Viridis, Magma, Inferno, Plasma ...
double lowest = 0.0
double highest = 1.0
String colours = 'Viridis'

// Whether to take the cells out again instead (for that, the file is not needed).
boolean remove = false

// ---------------------------------------------------------------------------------------------------------------------

def data = QPEx.getCurrentImageData()
if (data == null) {
    println 'Open an image first.'
    return
}
def hierarchy = data.getHierarchy()
if (remove) {
    def ours = hierarchy.getTileObjects().findAll { isCell(it) }
    hierarchy.removeObjects(ours, true)
    resetMap()
    println "${ours.size()} cells removed."
    return
}
def place = askPlace(cells, binding)
if (place == null) {
    println 'No folder was chosen; nothing was done.'
    return
}
def server = data.getServer()
def chosen = chooseCells(place, server)
if (chosen == null)
    return
def file = chosen.file
def read = new GZIPInputStream(new FileInputStream(file)).withCloseable { PathIO.readObjectsFromGeoJSON(it) }
def there = hierarchy.getTileObjects().collect { it.getID() } as Set
def fresh = read.findAll { !there.contains(it.getID()) }
hierarchy.addObjects(fresh)
println "${file}: ${fresh.size()} of ${read.size()} cells are new"
showMap(hierarchy.getTileObjects().findAll { isCell(it) }, measurement, colours, lowest, highest)
println 'Press F to fill the cells, D to hide them. Measure > Show measurement maps changes colours and range. ' +
    'For research use only.'

// ---- The parts ------------------------------------------------------------------------------------------------------

/** Whether an object is a cell of ours: a locked tile. */
boolean isCell(object) {
    return object.isTile() && object.isLocked()
}

/** Where the cells lie: from the settings, the command line, or a dialog; null where none is chosen. */
def askPlace(String given, binding) {
    if (given)
        return new File(given)
    if (binding.hasVariable('args') && binding.getVariable('args'))
        return new File(binding.getVariable('args')[0].toString())
    return QuPathGUI.getInstance() == null ? null : FileChoosers.promptForDirectory('Result folder of this slide', null)
}

/** The cells of the image in a folder, or the file itself; null, with a word why, where there are none of this slide. */
def chooseCells(File place, server) {
    def files = place.isFile() ? [place] : (place.listFiles() ?: []).findAll { it.name.endsWith('cells.geojson.gz') }
    if (files.isEmpty()) {
        println 'No file of cells was found. It is written by `wsi-pipeline run --cells`, or `export --to geojson-cells`.'
        return null
    }
    String image = server.getMetadata().getName()
    def found = files.sort { it.name }.collect { describe(it) }
    def own = ofImage(found, imageNames(server))
    if (own.isEmpty()) {
        println "${place}: none of ${found*.file*.name} is named after this image (${image})."
        found.findAll { it.result }.each { println "${it.file} is of ${it.name ?: 'a slide that no summary.json names'}." }
        return null
    }
    if (own.size() > 1) {
        println "${place}: several files fit: ${own*.file*.name}. Name one of them at the top of the script."
        return null
    }
    return fits(own[0], server) ? own[0] : null
}

/** A file of cells: the name of its slide, that name without its ending, the size QuPath's image must have. */
def describe(File file) {
    if (file.name != 'cells.geojson.gz') {
        String name = file.name.replaceFirst(/\.cells\.geojson\.gz$/, '')
        return [file: file, name: name, stem: name, size: statedSize(file), result: false]
    }
    def folder = file.absoluteFile.parentFile
    def summary = new File(folder, 'summary.json')
    String slide = summary.isFile() ? lastPart(new Gson().fromJson(summary.getText('UTF-8'), Map).path) : null
    return [file: file, name: slide, stem: slide == null ? null : stem(slide), size: mapSize(folder), result: true]
}

/** Whether the image has the size of the slide that the cells are of. */
boolean fits(cells, server) {
    if (cells.size == null) {
        println "${cells.file}: it states no size (export it again), so only its name was compared with the image's."
        return true
    }
    boolean same = server.getWidth() == cells.size[0] && server.getHeight() == cells.size[1]
    if (!same)
        println "${cells.file}: NOT SHOWN, it is of a slide of ${cells.size[0]} x ${cells.size[1]} px, the image has " +
            "${server.getWidth()} x ${server.getHeight()}. Is it another slide, or opened with a reader other than OpenSlide?"
    return same
}

/** The names of an image, in small letters: QuPath's, and that of its file. */
Set imageNames(server) {
    return ([server.getMetadata().getName()] + server.getURIs().collect { lastPart(it.getPath()) })
        .findAll { it }.collect { it.toLowerCase() } as Set
}

/** Those of an image: with its full name, or else with its name without the ending. Nothing is guessed beyond that. */
def ofImage(found, Set own) {
    def exact = found.findAll { own.contains(it.name?.toLowerCase()) }
    if (!exact.isEmpty())
        return exact
    def stems = own.collect { stem(it) } as Set
    return found.findAll { stems.contains(it.stem?.toLowerCase()) }
}

/** A name without its folders; of a case inside a zip, the case. */
def lastPart(path) {
    return path == null ? null : path.toString().split('[/\\\\]|::')[-1]
}

/** The name of a slide without its ending; .ome.tif is one. */
def stem(String name) {
    String endings = 'svs|tiff?|ndpi|mrxs|scn|bif|vm[su]|svslide|dcm|czi|qptiff|vsi|zarr|png|jpe?g'
    return name.replaceFirst('(?i)(\\.ome)?\\.(' + endings + ')$', '')
}

/** [width, height] of the slide as QuPath shows it, which is inside its bounds; null where it is not known. */
def mapSize(File folder) {
    for (name in ['heatmap.zarr/zarr.json', 'heatmap.zarr/.zattrs']) {
        def file = new File(folder, name)
        if (!file.isFile())
            continue
        def read = new Gson().fromJson(file.getText('UTF-8'), Map)
        def extent = (read.attributes ?: read).wsi_pipeline?.grid?.extent_px
        if (extent != null)
            return [extent[2].intValue(), extent[3].intValue()]
    }
    return null
}

/** The same as an exported file states it in its first line; null where it does not. */
def statedSize(File file) {
    String head = file.withInputStream {
        def text = file.name.endsWith('.gz') ? new GZIPInputStream(it) : it
        new String(text.readNBytes(200), 'UTF-8')
    }
    def found = head =~ /^\{"type":"FeatureCollection","image_px":\[(\d+),(\d+)\],/
    return found.find() ? [found.group(1).toInteger(), found.group(2).toInteger()] : null
}

/** Colour the cells by a measurement. */
def showMap(objects, String measurement, String colours, double lowest, double highest) {
    def viewer = QuPathGUI.getInstance()?.getViewer()
    if (viewer == null)
        return
    def colourMap = ColorMaps.getColorMaps()[colours] ?: ColorMaps.getDefaultColorMap()
    def mapper = new MeasurementMapper(colourMap, measurement, objects)
    if (!mapper.isValid()) {
        println "The cells have no measurement '${measurement}'."
        return
    }
    mapper.setDisplayMinValue(lowest)
    mapper.setDisplayMaxValue(highest)
    Platform.runLater {
        def options = viewer.getOverlayOptions()
        options.setMeasurementMapper(mapper)
        options.setShowDetections(true)
        options.setFillDetections(true)
    }
}

/** Back to the colours of the classes. */
def resetMap() {
    def viewer = QuPathGUI.getInstance()?.getViewer()
    if (viewer != null)
        Platform.runLater { viewer.getOverlayOptions().setMeasurementMapper(null) }
}
