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
import java.util.zip.GZIPInputStream
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
    println "No image for ${left.size()} results: ${left.collect { it.name }.join(', ')}"
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

/** Every result in a folder: its file of regions, the name of its slide and that name without its ending, the size
 * that QuPath's image must have. */
def findResults(File folder) {
    def found = []
    def slides = ([folder] + (folder.listFiles() ?: []).findAll { it.isDirectory() }).sort { it.name }
    for (slide in slides) {
        def summary = new File(slide, 'summary.json'), regions = new File(slide, 'regions.geojson')
        if (!summary.isFile() || !regions.isFile())
            continue
        def facts = new Gson().fromJson(summary.getText('UTF-8'), Map)
        String name = lastPart(facts.path)
        found << [file: regions, name: name, stem: name == null ? null : stem(name), size: mapSize(slide)]
    }
    if (found.isEmpty()) {
        for (file in (folder.listFiles() ?: []).findAll { it.isFile() && it.name.endsWith('.geojson') }.sort { it.name }) {
            // Named after the slide without its ending: what is left may end like a file, and is whole all the same.
            String name = file.name.replaceFirst(/\.geojson$/, '')
            found << [file: file, name: name, stem: name, size: statedSize(file)]
        }
    }
    return found
}

/** The results of an image of the project. */
def matchResults(entry, found) {
    def own = [entry.getOriginalImageName()]
    try {
        own.addAll(entry.getURIs().collect { lastPart(it.getPath()) })
    } catch (Exception ignored) {
        // An image that has been moved still has its name.
    }
    return ofImage(found, own.findAll { it }.collect { it.toLowerCase() } as Set)
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

/** Import one result into one image, save it, and say what was done; the number of new regions. */
int importInto(project, entry, result, boolean removeOutdated) {
    String image = entry.getOriginalImageName()
    def regions = result.file.withInputStream { PathIO.readObjectsFromGeoJSON(it) }
    // An image that is open is changed where it is shown, so that nothing unsaved in it is lost.
    def gui = QuPathGUI.getInstance()
    def open = gui == null ? [QPEx.getCurrentImageData()] : gui.getAllViewers().collect { it.getImageData() }
    def data = open.find { it != null && project.getEntry(it) == entry } ?: entry.readImageData()
    checkSize(data, result)
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
def checkSize(data, result) {
    def server = data.getServer(), size = result.size
    if (size == null)
        println "${result.file}: it states no size (export it again), so only its name was compared with the image's."
    else if (server.getWidth() != size[0] || server.getHeight() != size[1])
        throw new IllegalStateException("the result is of a slide of ${size[0]} x ${size[1]} px, the image has " +
            "${server.getWidth()} x ${server.getHeight()}. Is it another slide, or opened with a reader other than OpenSlide?")
}
