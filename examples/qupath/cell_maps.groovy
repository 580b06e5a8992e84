/*
 * Show the map of one slide over it, cell by cell: QuPath's measurement maps. For research use only.
 *
 * QuPath 0.5 or later. Open the image, then Automate > Script editor, open this file, Run. It asks for the slide's
 * result folder, which holds cells.geojson.gz (`wsi-pipeline run --cells`), or a folder with the slide's
 * .cells.geojson.gz (`wsi-pipeline export --to geojson-cells`).
 *
 * QuPath keeps all objects in memory: up to some 200,000 cells are comfortable. For more, run with larger cells
 * (`--cell 50um`), or open the map as an image (`--to ome-zarr-0.4`).
 */
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
def file = askFile(cells, binding, data.getServer().getMetadata().getName())
if (file == null) {
    println 'No file of cells was found. It is written by `wsi-pipeline run --cells`, or `export --to geojson-cells`.'
    return
}
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

/** The file of cells: from the settings, the command line, or a dialog; null where there is none. */
def askFile(String given, binding, String image) {
    def place = given ? new File(given) : null
    if (place == null && binding.hasVariable('args') && binding.getVariable('args'))
        place = new File(binding.getVariable('args')[0].toString())
    if (place == null && QuPathGUI.getInstance() != null)
        place = FileChoosers.promptForDirectory('Result folder of this slide', null)
    if (place == null || place.isFile())
        return place
    def files = (place.listFiles() ?: []).findAll { it.name.endsWith('cells.geojson.gz') }
    def own = files.findAll { it.name == 'cells.geojson.gz' || image.startsWith(it.name - '.cells.geojson.gz') }
    if (own.isEmpty() && !files.isEmpty())
        println "${place}: none of ${files*.name} is named after this image (${image})."
    return own.size() == 1 ? own[0] : null
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
