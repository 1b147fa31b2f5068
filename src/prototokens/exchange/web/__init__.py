"""A `.ptok` file as a web page: the model as ONNX, the page and its runtime."""
