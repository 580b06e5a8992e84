/*
 * Import the regions of a whole run into a QuPath project, image by image. For research use only.
 *
 * QuPath 0.5 or later. Open the project, then Automate > Script editor, open this file, Run. It asks for the folder
 * that was --out of `wsi-pipeline run`, or a folder of .geojson files written by `wsi-pipeline export`.
 * (Run, not "Run for project": the script goes through the project by itself.)
 * Without a window:  QuPath script import_regions.groovy --project=project.qpproj --args=/path/to/results
 *
 * Running it twice changes nothing: regions carry fixed ids, and those that an image has already are passed over.
 * Nothing that you drew or unlocked is ever removed.
 */
import com.google.gson.Gson
import qupath.fx.dialogs.FileChoosers
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.scripting.QPEx
import qupath.lib.io.PathIO

// ---- Settings -------------------------------------------------------------------------------------------------------

// Folder of the results; empty to be asked.
String results = ''

// Whether regions of an earlier import that the results no longer have (another threshold, another model) are removed.
// Only locked annotations named "<class> region <number>" are; unlock one to keep it.
boolean removeOutdated = false

// ---------------------------------------------------------------------------------------------------------------------

def project = QPEx.getProject()
if (project == null) {
    println 'Open a project first: regions are imported into the images of a project.'
    return
}
def folder = askFolder(results, binding)
if (folder == null) {
    println 'No folder was chosen; nothing was done.'
    return
}
def found = findResults(folder)
if (found.isEmpty()) {
    println "${folder}: there are no regions here. Choose the folder that was --out of the run."
    return
}

int imported = 0, images = 0
def used = new HashSet()
def unmatched = []
// Without a window, QuPath runs the script for each image of the project.
def entries = QuPathGUI.getInstance() == null ? [QPEx.getProjectEntry()] : project.getImageList()
for (entry in entries) {
    String image = entry.getOriginalImageName()
    def matching = matchResults(entry, found)
    if (matching.isEmpty()) {
        unmatched << image
        continue
    }
    used.addAll(matching)
    if (matching.size() > 1) {
        println "${image}: SKIPPED, several results fit: ${matching*.file}. Run the script on one of their folders."
        continue
    }
    try {
        int added = importInto(project, entry, matching[0], removeOutdated)
        images++
        imported += added
    } catch (Exception error) {
        println "${image}: FAILED, ${error.message ?: error}"
    }
}

if (!unmatched.isEmpty())
    println "No result for ${unmatched.size()} images of the project: ${unmatched.join(', ')}"
def left = entries.size() < project.getImageList().size() ? [] : found.findAll { !used.contains(it) }
if (!left.isEmpty())
    println "No image for ${left.size()} results: ${left.collect { it.names[0] }.join(', ')}"
println "Done: ${imported} new regions in ${images} images. For research use only."

// ---- The parts ------------------------------------------------------------------------------------------------------

/** The folder of the results: from the settings, the command line, or a dialog; null where none is chosen. */
def askFolder(String given, binding) {
    if (given)
        return new File(given)
    if (binding.hasVariable('args') && binding.getVariable('args'))
        return new File(binding.getVariable('args')[0].toString())
    return QuPathGUI.getInstance() == null ? null : FileChoosers.promptForDirectory('Folder of the results', null)
}

/** Every result in a folder: its file of regions, the names its slide may have, the size QuPath's image must have. */
def findResults(File folder) {
    def found = []
    def slides = ([folder] + (folder.listFiles() ?: []).findAll { it.isDirectory() }).sort { it.name }
    for (slide in slides) {
        def summary = new File(slide, 'summary.json'), regions = new File(slide, 'regions.geojson')
        if (!summary.isFile() || !regions.isFile())
            continue
        def facts = new Gson().fromJson(summary.getText('UTF-8'), Map)
        found << [file: regions, names: [lastPart(facts.path), facts.slide.toString(), slide.name], size: imageSize(slide)]
    }
    if (found.isEmpty()) {
        for (file in (folder.listFiles() ?: []).findAll { it.isFile() && it.name.endsWith('.geojson') }.sort { it.name })
            found << [file: file, names: [file.name - '.geojson'], size: null]
    }
    return found
}

/** [width, height] of the slide as QuPath shows it, which is inside its bounds; null where it is not known. */
def imageSize(File slide) {
    for (name in ['heatmap.zarr/zarr.json', 'heatmap.zarr/.zattrs']) {
        def file = new File(slide, name)
        if (!file.isFile())
            continue
        def read = new Gson().fromJson(file.getText('UTF-8'), Map)
        def extent = (read.attributes ?: read).wsi_pipeline?.grid?.extent_px
        if (extent != null)
            return [extent[2].intValue(), extent[3].intValue()]
    }
    return null
}

/** The results of an image: those with its file's full name, or else those with its name without the ending. */
def matchResults(entry, found) {
    def own = [entry.getOriginalImageName()]
    try {
        own.addAll(entry.getURIs().collect { lastPart(it.getPath()) })
    } catch (Exception ignored) {
        // An image that has been moved still has its name.
    }
    own = own.findAll { it }.collect { it.toLowerCase() } as Set
    def exact = found.findAll { result -> result.names.any { it && own.contains(it.toLowerCase()) } }
    if (!exact.isEmpty())
        return exact
    def stems = own.collect { stem(it) } as Set
    return found.findAll { result -> result.names.any { it && stems.contains(stem(it.toLowerCase())) } }
}

/** A file's name without its folders; of a case inside a zip, the case. */
def lastPart(path) {
    return path == null ? null : path.toString().split('[/\\\\]|::')[-1]
}

/** A name without its ending; .ome.tif is one. */
def stem(String name) {
    return name.replaceFirst(/(\.ome)?\.[a-z][a-z0-9]{1,5}$/, '')
}

/** Import one result into one image, save it, and say what was done; the number of new regions. */
int importInto(project, entry, result, boolean removeOutdated) {
    String image = entry.getOriginalImageName()
    def regions = result.file.withInputStream { PathIO.readObjectsFromGeoJSON(it) }
    // An image that is open is changed where it is shown, so that nothing unsaved in it is lost.
    def gui = QuPathGUI.getInstance()
    def open = gui == null ? [QPEx.getCurrentImageData()] : gui.getAllViewers().collect { it.getImageData() }
    def data = open.find { it != null && project.getEntry(it) == entry } ?: entry.readImageData()
    checkSize(data, result.size)
    def hierarchy = data.getHierarchy()
    def there = hierarchy.getAnnotationObjects()
    def thereIds = there.collect { it.getID() } as Set
    def fresh = regions.findAll { !thereIds.contains(it.getID()) }
    def outdated = []
    if (removeOutdated) {
        def ids = regions.collect { it.getID() } as Set
        outdated = there.findAll { it.isLocked() && it.getName() ==~ /.+ region \d+/ && !ids.contains(it.getID()) }
        hierarchy.removeObjects(outdated, true)
    }
    hierarchy.addObjects(fresh)
    if (!fresh.isEmpty() || !outdated.isEmpty())
        entry.saveImageData(data)
    String removed = removeOutdated ? ", ${outdated.size()} outdated ones removed" : ''
    println "${image}: ${fresh.size()} of ${regions.size()} regions are new${removed}"
    return fresh.size()
}

/** Refuse an image that is not the slide the result was made from. */
def checkSize(data, size) {
    def server = data.getServer()
    if (size != null && (server.getWidth() != size[0] || server.getHeight() != size[1]))
        throw new IllegalStateException("the result is of a slide of ${size[0]} x ${size[1]} px, the image has " +
            "${server.getWidth()} x ${server.getHeight()}. Is it another slide, or opened with a reader other than OpenSlide?")
}
