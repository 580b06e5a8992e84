"""The viewer: finished results on a local web page.

`create_app` gives the server as a FastAPI application, `serve` runs it. Everything it shows is read from the folder of
results and from the slides that the results are of; the only file it writes is ``annotations.geojson`` beside a result.
Nothing here loads torch.

For research use only.
"""
