"""Stand-ins for the few classes of QuPath that our scripts use, so that the scripts can be run without it.

Each has the names and the meaning of QuPath 0.5 to 0.7 as its sources have them, and nothing else: a script that calls
anything further fails.
"""

from pathlib import Path

STUBS = {
    "com/google/gson/Gson": """
        package com.google.gson
        class Gson { def fromJson(String text, Class kind) { new groovy.json.JsonSlurper().parseText(text) } }
    """,
    "javafx/application/Platform": """
        package javafx.application
        class Platform { static void runLater(Runnable task) { task.run() } }
    """,
    "qupath/fx/dialogs/FileChoosers": """
        package qupath.fx.dialogs
        class FileChoosers {
            static File chosen
            static File promptForDirectory(String title, File start) { chosen }
        }
    """,
    "qupath/lib/gui/QuPathGUI": """
        package qupath.lib.gui
        class QuPathGUI {
            static QuPathGUI instance
            static QuPathGUI getInstance() { instance }
            List viewers = []
            List getAllViewers() { viewers }
            def getViewer() { viewers ? viewers[0] : null }
        }
    """,
    "qupath/lib/gui/scripting/QPEx": """
        package qupath.lib.gui.scripting
        class QPEx {
            static project, entry, data
            static getProject() { project }
            static getProjectEntry() { entry }
            static getCurrentImageData() { data }
        }
    """,
    "qupath/lib/gui/tools/MeasurementMapper": """
        package qupath.lib.gui.tools
        class MeasurementMapper {
            def map; String measurement; Collection objects; double low, high
            MeasurementMapper(map, String measurement, Collection objects) {
                this.map = map; this.measurement = measurement; this.objects = objects
            }
            boolean isValid() { objects.any { it.measurements.containsKey(measurement) } }
            void setDisplayMinValue(double value) { low = value }
            void setDisplayMaxValue(double value) { high = value }
        }
    """,
    "qupath/lib/color/ColorMaps": """
        package qupath.lib.color
        class ColorMaps {
            static Map getColorMaps() { ['Viridis': 'viridis'] }
            static getDefaultColorMap() { 'default' }
        }
    """,
    "qupath/lib/io/PathIO": """
        package qupath.lib.io
        class PathIO {
            static List readObjectsFromGeoJSON(InputStream stream) {
                new groovy.json.JsonSlurper().parse(stream, 'UTF-8').features.collect {
                    def of = it.properties
                    new stub.Thing(uuid: UUID.fromString(it.id), name: of.name, locked: of.isLocked,
                        tile: of.objectType == 'tile', measurements: of.measurements)
                }
            }
        }
    """,
    "stub/Thing": """
        package stub
        class Thing {
            UUID uuid; String name; boolean locked, tile; Map measurements
            UUID getID() { uuid }
            String getName() { name }
            boolean isLocked() { locked }
            boolean isTile() { tile }
        }
    """,
    "stub/Hierarchy": """
        package stub
        class Hierarchy {
            List things = []
            boolean addObjects(Collection added) { things.addAll(added) }
            void removeObjects(Collection removed, boolean keepChildren) { things.removeAll(removed) }
            Collection getAnnotationObjects() { things.findAll { !it.isTile() } }
            Collection getTileObjects() { things.findAll { it.isTile() } }
        }
    """,
    "stub/Server": """
        package stub
        class Server {
            String name; int width, height; List uris = []
            Collection getURIs() { uris.collect { new URI(it) } }
            int getWidth() { width }
            int getHeight() { height }
            def getMetadata() { this }
            String getName() { name }
        }
    """,
    "stub/Data": """
        package stub
        class Data {
            Server server; Hierarchy hierarchy = new Hierarchy()
            Server getServer() { server }
            Hierarchy getHierarchy() { hierarchy }
        }
    """,
    "stub/Entry": """
        package stub
        class Entry {
            String name; Data data; int saved = 0; List uris = []
            String getOriginalImageName() { name }
            Collection getURIs() { uris.collect { new URI(it) } }
            Data readImageData() { data }
            void saveImageData(Data given) { assert given.is(data); saved++ }
        }
    """,
    "stub/Project": """
        package stub
        class Project {
            List entries = []
            List getImageList() { entries }
            def getEntry(data) { entries.find { it.data.is(data) } }
        }
    """,
    "stub/Options": """
        package stub
        class Options {
            def mapper; boolean shown, filled
            void setMeasurementMapper(value) { mapper = value }
            void setShowDetections(boolean value) { shown = value }
            void setFillDetections(boolean value) { filled = value }
        }
    """,
    "stub/Viewer": """
        package stub
        class Viewer {
            Data imageData; Options options = new Options()
            Data getImageData() { imageData }
            Options getOverlayOptions() { options }
        }
    """,
}


def write_stubs(folder: Path) -> list[Path]:
    """The stand-ins as sources, a file a class."""
    files = []
    for name, source in STUBS.items():
        file = folder / f"{name}.groovy"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source, encoding="utf-8")
        files.append(file)
    return files
